"""The paths and URIs in a job: made absolute on this machine, or required to be valid on every node."""

from concurrent.futures import ThreadPoolExecutor

from .. import storage
from ..errors import JobError, StorageError
from .job_file import validate
from .kind import Upcoming
from .kinds import kind_of
from .spec import Job


def absolute(job: Job) -> Job:
    """The same job with every relative local path made absolute from the working directory."""
    document = job.model_dump(mode="json")
    for path, uri in kind_of(job).uris(job):
        section = document
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = storage.absolute(uri)
    return validate(document, job.name or job.kind)


def require_shared(job: Job, where: str) -> None:
    """JobError if a path depends on the working directory: the cluster's nodes do not share it."""
    relative = [f"{where}: {'.'.join(map(str, path))}: '{uri}' is relative to this machine's working directory"
                for path, uri in kind_of(job).uris(job) if not storage.is_shared(uri)]
    if relative:
        raise JobError("", "\n".join(relative), "give s3://bucket/prefix, or an absolute path on a file system "
                                                "that all nodes share")


def unreachable(job: Job) -> dict[str, StorageError]:
    """The S3 locations of the job that cannot be reached, and why; within about 15 s."""

    def error_of(uri: str) -> StorageError | None:
        try:
            storage.check_access(uri)
        except StorageError as error:
            return error

    uris = sorted({uri for _, uri in kind_of(job).uris(job) if storage.is_remote(uri)})
    with ThreadPoolExecutor(max_workers=8) as pool:
        return {uri: error for uri, error in zip(uris, pool.map(error_of, uris)) if error is not None}


def check_access(job: Job) -> None:
    """JobError within about 15 s if an S3 location of the job cannot be reached."""
    for error in unreachable(job).values():
        raise error


def check_inputs(job: Job) -> None:
    """JobError if an input of the job does not exist and no earlier step makes it."""
    upcoming = Upcoming()
    for name, step in kind_of(job).steps(job).items():
        kind_of(step).check_inputs(step, upcoming)
        upcoming.add(name, kind_of(step), step)
