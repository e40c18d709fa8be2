"""Retries for S3: which errors are transient, how long each is retried, and the final message for the user.

The clients' own retries are not enough: they stop after seconds, never repeat a truncated body, and do not check
the digests. So botocore makes single attempts, and all retries are here. An operation ends at most one attempt
(`READ_TIMEOUT_S`, and the time that its bytes take at the slowest useful rate) after its retry time is over.
"""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import botocore.exceptions as faults
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from ..errors import NotFound, StorageError
from . import PATIENCE, activity

RETRY_FOR_S = 90.0
"""Retry time for a server that answers, or has answered before; `storage.PATIENCE` replaces it for any server."""
RETRY_UNREACHABLE_FOR_S = 10.0
"""Retry time for a server that never answered this process and cannot be connected to."""
RETRY_CHECK_FOR_S = 5.0
"""Retry time of the access check at the start of a job."""
READ_TIMEOUT_S = 15.0
"""How long a connection may be silent."""
SLOWEST_BYTES_PER_S = 50e3
"""Slower bodies are aborted and retried, like silent connections."""
LONGEST_PAUSE_S = 5.0

T = TypeVar("T")


class BrokenBody(ConnectionError):
    """A body whose length differs from the header, or that is too slow."""


_UNREACHABLE = (faults.EndpointConnectionError, faults.ConnectTimeoutError, faults.ProxyConnectionError,
                faults.SSLError)
_BROKEN = (faults.HTTPClientError, faults.IncompleteReadError, faults.ResponseStreamingError, ResponseParserError,
           faults.ChecksumError, faults.FlexibleChecksumError, urllib3.exceptions.HTTPError, ConnectionError)
_TRANSIENT_CODES = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException",
                  "TooManyRequests", "ConditionalRequestConflict", "OperationAborted",
                  "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}  # the last three: damaged in transit
_reached_endpoints: set[str | None] = set()
"""Endpoints that have answered this process; these are retried longer."""


def endpoint() -> str | None:
    """URL of the S3 server; None: AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def with_retries(uri: str, attempt: Callable[[], T], retry_for_s: float | None = None) -> T:
    """`attempt()`, retried after transient errors; else a StorageError about `uri` with a remedy."""
    with activity.operation(place()):
        return _with_retries(uri, attempt, retry_for_s)


def place() -> str:
    """The S3 server, in words."""
    return f"S3 at {endpoint() or 'AWS'}"


def _with_retries(uri: str, attempt: Callable[[], T], retry_for_s: float | None) -> T:
    def answered() -> T:
        result = attempt()
        _reached_endpoints.add(endpoint())
        return result

    return repeated(place(), answered, (faults.BotoCoreError, faults.ClientError, ResponseParserError,
                                        urllib3.exceptions.HTTPError, ConnectionError),
                    lambda error: _retry_limit_s(error, retry_for_s), lambda error: _explained(error, uri))


def repeated(where: str, attempt: Callable[[], T], caught: tuple[type[Exception], ...],
             limit_s: Callable[[Exception], float], explained: Callable[[Exception], StorageError]) -> T:
    """`attempt()` until it succeeds; ``limit_s`` is for how long after an error, which is then ``explained``."""
    started, attempts = time.monotonic(), 0
    while True:
        attempt_started = time.monotonic()
        try:
            result = attempt()
            activity.moved()
            return result
        except caught as error:
            attempts += 1
            pause_s = random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.1 * 2**attempts)
            if time.monotonic() + pause_s > started + limit_s(error):
                raise explained(error) from error
            activity.silent(where, attempt_started)
            time.sleep(pause_s)


def _retry_limit_s(error: Exception, retry_for_s: float | None) -> float:
    """How long this error is retried; 0 if it is permanent."""
    if isinstance(error, faults.ClientError):
        _reached_endpoints.add(endpoint())
    patience_s = float(os.environ.get(PATIENCE, 0))
    limit_s = (patience_s or RETRY_FOR_S) if retry_for_s is None else retry_for_s
    if isinstance(error, _UNREACHABLE):
        known = bool(patience_s) or endpoint() in _reached_endpoints
        return limit_s if known else min(limit_s, RETRY_UNREACHABLE_FOR_S)
    if isinstance(error, faults.ClientError):
        transient = _status(error) >= 500 or _status(error) == 429 or _code(error) in _TRANSIENT_CODES
        return limit_s if transient else 0
    return limit_s if isinstance(error, _BROKEN) else 0


# --- messages for the user ------------------------------------------------------------------------------


def _explained(error: Exception, uri: str) -> StorageError:
    if isinstance(error, faults.NoCredentialsError | faults.PartialCredentialsError | faults.ProfileNotFound |
                  faults.CredentialRetrievalError):
        return StorageError(uri, f"S3 credentials are missing ({error})",
                            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
                            "machine a role")
    if isinstance(error, _UNREACHABLE):
        return StorageError(uri, f"S3 cannot be reached at {endpoint() or 'AWS'}",
                            "check AWS_ENDPOINT_URL, AWS_REGION and the network")
    if isinstance(error, faults.ClientError):
        return _refusal(error, uri)
    if isinstance(error, faults.ParamValidationError | faults.InvalidRegionError | ValueError):
        return StorageError(uri, f"is not a valid S3 location ({' '.join(str(error).split())})",
                            "write s3://bucket/prefix")
    return StorageError(uri, f"the connection to S3 keeps breaking ({error})",
                        "check the network and the server's load, then start again")


def _refusal(error: faults.ClientError, uri: str) -> StorageError:
    code, status = _code(error), _status(error)
    if code == "NoSuchBucket":
        bucket = uri.removeprefix("s3://").partition("/")[0]
        return StorageError(uri, f"bucket '{bucket}' does not exist", "create it, or check its name")
    if status == 404:
        return NotFound(uri, "there is nothing here", "check the path")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return StorageError(uri, f"S3 refuses the credentials ({code})",
                            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN")
    if status in (401, 403):
        return StorageError(uri, "S3 denies access",
                            "let these credentials read, write and list this bucket, or use others")
    return StorageError(uri, f"S3 answers {status} {code}: {error.response['Error'].get('Message', '')}",
                        "check the server, then start again")


def _status(error: faults.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: faults.ClientError) -> str:
    return error.response["Error"].get("Code", "")
