"""Which faults of S3 pass, how long each is waited for, and what a user reads when it lasts.

The clients' own retries are not enough: they stop after seconds, never repeat a body that breaks off, and know
nothing of the digests. So botocore makes single attempts, and the patience is here, in one place. An operation
ends at most one attempt (`READ_TIMEOUT_S`, and the time that its bytes take at the slowest useful rate) after
its patience has run out.
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

PATIENCE_S = 90.0
"""How long a server that answers, or has answered before, is tried again."""
PATIENCE_UNREACHABLE_S = 10.0
"""How long a server that never answered this process, and cannot be connected to, is tried again."""
PATIENCE_CHECK_S = 5.0
"""The same for a first look at the start of a job."""
READ_TIMEOUT_S = 15.0
"""How long a connection may be silent."""
SLOWEST_BYTES_PER_S = 50e3
"""Slower bodies are given up: a connection that drips is as good as silent."""
LONGEST_PAUSE_S = 5.0

T = TypeVar("T")


class BrokenBody(ConnectionError):
    """A body that is not the one announced, or is too slow in coming."""


_UNREACHABLE = (faults.EndpointConnectionError, faults.ConnectTimeoutError, faults.ProxyConnectionError,
                faults.SSLError)
_BROKEN = (faults.HTTPClientError, faults.IncompleteReadError, faults.ResponseStreamingError, ResponseParserError,
           faults.ChecksumError, faults.FlexibleChecksumError, urllib3.exceptions.HTTPError, ConnectionError)
_PASSING_CODES = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException",
                  "TooManyRequests", "ConditionalRequestConflict", "OperationAborted",
                  "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}  # the last three: broken on the way there
_answered: set[str | None] = set()
"""Endpoints that have answered this process: such a one is worth waiting for."""


def endpoint() -> str | None:
    """Where S3 is; None: at AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def patiently(uri: str, attempt: Callable[[], T], patience_s: float | None = None) -> T:
    """`attempt()`, again after faults that may pass, else the StorageError about `uri` that a user can act on."""
    begun, tries = time.monotonic(), 0
    while True:
        try:
            result = attempt()
            _answered.add(endpoint())
            return result
        except (faults.BotoCoreError, faults.ClientError, ResponseParserError, urllib3.exceptions.HTTPError,
                ConnectionError) as error:
            if isinstance(error, faults.ClientError):
                _answered.add(endpoint())
            tries += 1
            pause_s = random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.1 * 2**tries)
            if time.monotonic() + pause_s > begun + _worth_s(error, patience_s):
                raise _explained(error, uri) from error
            time.sleep(pause_s)


def _worth_s(error: Exception, patience_s: float | None) -> float:
    """How long this fault is worth trying again; 0 where it will not pass."""
    longest_s = PATIENCE_S if patience_s is None else patience_s
    if isinstance(error, _UNREACHABLE):
        return longest_s if endpoint() in _answered else min(longest_s, PATIENCE_UNREACHABLE_S)
    if isinstance(error, faults.ClientError):
        passing = _status(error) >= 500 or _status(error) == 429 or _code(error) in _PASSING_CODES
        return longest_s if passing else 0
    return longest_s if isinstance(error, _BROKEN) else 0


# --- what a user reads ----------------------------------------------------------------------------------


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
