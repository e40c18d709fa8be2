"""Causes of the errors that Ray raises."""


def original(error: BaseException) -> BaseException:
    """The exception that the training function raised, unwrapped."""
    return getattr(error, "_base_exc", None) or getattr(error, "cause", None) or error


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the node ran out of memory."""
    cause = original(error)
    message = str(cause).lower()
    return (isinstance(cause, MemoryError) or "OutOfMemory" in type(cause).__name__
            or "out of memory" in message or "can't allocate memory" in message)


def breakdown(error: BaseException) -> str | None:
    """What of Ray itself has failed, in one sentence; None for the errors of a job, which have their own messages."""
    from ray.exceptions import RayError, RayTaskError

    if not isinstance(error, RayError) or isinstance(error, RayTaskError):
        return None
    text = str(error).strip().splitlines() or [type(error).__name__]
    return f"a process of Ray was lost ({type(error).__name__}: {text[0].rstrip('.')})"
