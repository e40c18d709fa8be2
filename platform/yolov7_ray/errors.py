"""What a job author sees when something is wrong: where, what arrived, what works."""


class JobError(Exception):
    """A mistake or obstacle that the user can act on; printed as one message, never as a traceback.

    ``where`` names the place (a job file and key, a URI, a request), ``problem`` what arrived there,
    ``remedy`` what works instead.
    """

    exit_status = 2
    """Of the command that ends with it."""

    def __init__(self, where: str, problem: str, remedy: str = ""):
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(where, problem, remedy)  # all arguments, so that it pickles across Ray processes

    def __str__(self) -> str:
        message = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{message}; {self.remedy}" if self.remedy else message


class Unsound(JobError):
    """A dataset that was examined, and has errors."""

    exit_status = 1


class StorageError(JobError):
    """A URI that cannot be reached, read or written."""


class NotFound(StorageError):
    """A URI that names nothing."""


class AlreadyExists(StorageError):
    """A conditional write that lost: something else is there already."""


class Corrupt(StorageError):
    """Bytes that are not the bytes that were written (size or sha256 differ)."""
