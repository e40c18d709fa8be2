"""The S3 half of `storage`: one object or prefix, with every fault of the network met by a bounded patience.

The defaults of the clients are not enough: they do not retry a body that breaks off, take a short body for
a whole one, and send a checksum form that some servers refuse. So botocore makes single attempts and the
patience is here, in one place.
"""

import base64
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.exceptions as faults
import pyarrow.fs
import urllib3.exceptions
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from .disk import FileInfo, explained
from .errors import AlreadyExists, NotFound, StorageError

# Ceph and older servers answer 411 to the trailing checksums that new clients send by default; this is read by
# boto3 and by pyarrow, in this process and its children. Uploads carry Content-MD5, shards their sha256.
os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")

PATIENCE_S = 90.0
"""How long a server that answers, but with errors or broken bodies, is tried again."""
PATIENCE_UNREACHABLE_S = 10.0
"""How long a server that cannot be connected to is tried again."""
PATIENCE_CHECK_S = 5.0
"""The same for a first look at the start of a job."""
SINGLE_PUT_BYTES = 64 << 20
PARALLEL_DELETES = 16

T = TypeVar("T")

_UNREACHABLE = (faults.EndpointConnectionError, faults.ConnectTimeoutError, faults.ProxyConnectionError,
                faults.SSLError)
_BROKEN = (faults.HTTPClientError, faults.IncompleteReadError, faults.ResponseStreamingError,
           urllib3.exceptions.HTTPError, ConnectionError)
_BUSY_CODES = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException",
               "TooManyRequests", "ConditionalRequestConflict", "OperationAborted"}
_LOST_RACE = {"PreconditionFailed", "412"}


class ShortBody(ConnectionError):
    """A body shorter than announced."""


class S3:
    """One S3 location, object or prefix."""

    def __init__(self, bucket: str, key: str):
        self.bucket, self.key = bucket, key
        self.uri = f"s3://{bucket}/{key}".rstrip("/")

    @classmethod
    def of(cls, uri: str) -> "S3":
        """Parse ``s3://bucket/key``."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise StorageError(uri, "names no bucket", "write s3://bucket/prefix")
        return cls(bucket, key.rstrip("/"))

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """pyarrow's filesystem, which by itself would ignore the endpoint in the environment."""
        filesystem = pyarrow.fs.S3FileSystem(
            region=_region(self.bucket), endpoint_override=_endpoint(), connect_timeout=5, request_timeout=20,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=8))
        return filesystem, f"{self.bucket}/{self.key}".rstrip("/")

    def check_access(self, write: bool) -> None:
        """Raise where endpoint, credentials or bucket do not work; writing is not tried."""
        self._call("list_objects_v2", PATIENCE_CHECK_S, Prefix=self.key, MaxKeys=1)

    # --- reading ----------------------------------------------------------------------------------------

    def read(self) -> bytes:
        """The whole content."""
        return self.read_with_etag()[0]

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content and its ETag (unquoted: Ceph knows no other form in conditions)."""
        def get() -> tuple[bytes, str]:
            reply = _client().get_object(Bucket=self.bucket, Key=self.key)
            return _whole_body(reply), reply["ETag"].strip('"')

        return self._patiently(get)

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop."""
        def get() -> bytes:
            reply = _client().get_object(Bucket=self.bucket, Key=self.key, Range=f"bytes={start}-{stop - 1}")
            data = _whole_body(reply)
            if len(data) != stop - start:
                raise ShortBody(f"{len(data)} of {stop - start} bytes")
            return data

        return self._patiently(get)

    def num_bytes(self) -> int:
        """Size of the object."""
        return self._call("head_object", Key=self.key)["ContentLength"]

    def exists(self) -> bool:
        """Whether there is an object, or a prefix that holds one."""
        try:
            self.num_bytes()
            return True
        except NotFound:
            return next(self.files(), None) is not None

    def files(self) -> Iterator[FileInfo]:
        """Objects below this prefix, hidden ones left out."""
        prefix = f"{self.key}/" if self.key else ""
        for entry in self._entries(prefix):
            path = entry["Key"].removeprefix(prefix)
            if path and not path.endswith("/") and not any(part.startswith(".") for part in path.split("/")):
                yield FileInfo(path, entry["Size"], entry["ETag"].strip('"'))

    def _entries(self, prefix: str) -> Iterator[dict]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **token)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    # --- writing ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write or replace in a single PUT."""
        self._call("put_object", Key=self.key, Body=data, ContentMD5=_md5(data))

    def upload(self, local_path: Path) -> None:
        """Copy a local file to here; large ones in parallel parts."""
        if not local_path.is_file():
            raise NotFound(str(local_path), "there is no such file", "check the path")
        if local_path.stat().st_size <= SINGLE_PUT_BYTES:
            return self.write(local_path.read_bytes())
        transfer = TransferConfig(multipart_threshold=SINGLE_PUT_BYTES, multipart_chunksize=16 << 20,
                                  max_concurrency=4)
        self._patiently(lambda: _client(attempts=8).upload_file(str(local_path), self.bucket, self.key,
                                                                Config=transfer))
        return None

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """Write where the version is `expected_etag` (None: nothing is there).

        Always a single PUT: on multipart uploads some servers ignore the condition. When an earlier attempt's
        reply was lost, the condition may have failed against our own write, which reading it back tells.
        """
        condition = {"IfNoneMatch": "*"} if expected_etag is None else {"IfMatch": expected_etag}
        attempts = 0

        def put() -> str:
            nonlocal attempts
            attempts += 1
            try:
                reply = _client().put_object(Bucket=self.bucket, Key=self.key, Body=data, ContentMD5=_md5(data),
                                             **condition)
                return reply["ETag"].strip('"')
            except faults.ClientError as error:
                if error.response["Error"]["Code"] not in _LOST_RACE:
                    raise
            if attempts > 1:
                present, etag = self.read_with_etag()
                if present == data:
                    return etag
            raise AlreadyExists(self.uri, "another writer was faster", "read it again, or choose another name")

        return self._patiently(put)

    def delete(self) -> None:
        """Remove the object and all below its prefix, one by one: bulk deletion differs among servers."""
        keys = [self.key, *(entry["Key"] for entry in self._entries(f"{self.key}/"))]
        with ThreadPoolExecutor(PARALLEL_DELETES) as pool:
            list(pool.map(lambda key: self._call("delete_object", Key=key), keys))

    # --- patience ---------------------------------------------------------------------------------------

    def _call(self, operation: str, patience_s: float | None = None, **arguments: Any) -> dict:
        return self._patiently(lambda: getattr(_client(), operation)(Bucket=self.bucket, **arguments), patience_s)

    def _patiently(self, attempt: Callable[[], T], patience_s: float | None = None) -> T:
        """`attempt()`, again after faults that may pass, else the error that a user can act on."""
        begun, tries = time.monotonic(), 0
        while True:
            try:
                return attempt()
            except (faults.BotoCoreError, faults.ClientError, Boto3Error, urllib3.exceptions.HTTPError,
                    ConnectionError) as error:
                cause = error.__context__ if isinstance(error, Boto3Error) and error.__context__ else error
                tries += 1
                pause_s = random.uniform(0.5, 1) * min(5.0, 0.1 * 2**tries)
                left_s = begun + _patience_s(cause, patience_s or PATIENCE_S) - time.monotonic()
                if pause_s > left_s:
                    raise self._explained(cause) from error
                time.sleep(pause_s)
            except OSError as error:  # of the local file in an upload
                raise explained(error, self.uri) from error

    def _explained(self, error: BaseException) -> StorageError:
        if isinstance(error, faults.NoCredentialsError | faults.PartialCredentialsError | faults.ProfileNotFound |
                      faults.CredentialRetrievalError):
            return StorageError(self.uri, f"S3 credentials are missing ({error})",
                                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
                                "machine a role")
        if isinstance(error, _UNREACHABLE):
            return StorageError(self.uri, f"S3 cannot be reached at {_endpoint() or 'AWS'}",
                                "check AWS_ENDPOINT_URL, AWS_REGION and the network")
        if isinstance(error, faults.ClientError):
            return self._refusal(error)
        if isinstance(error, faults.ParamValidationError | faults.InvalidRegionError | ValueError):
            return StorageError(self.uri, f"is not a valid S3 location ({' '.join(str(error).split())})",
                                "write s3://bucket/prefix")
        return StorageError(self.uri, f"the connection to S3 keeps breaking ({error})",
                            "check the network and the server's load, then start again")

    def _refusal(self, error: faults.ClientError) -> StorageError:
        code, status = error.response["Error"].get("Code", ""), _status(error)
        if code == "NoSuchBucket":
            return StorageError(self.uri, f"bucket '{self.bucket}' does not exist", "create it, or check its name")
        if status == 404:
            return NotFound(self.uri, "there is nothing here", "check the path")
        if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
            return StorageError(self.uri, f"S3 refuses the credentials ({code})",
                                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN")
        if status in (401, 403):
            return StorageError(self.uri, "S3 denies access",
                                "let these credentials read, write and list this bucket, or use others")
        return StorageError(self.uri, f"S3 answers {status} {code}: {error.response['Error'].get('Message', '')}",
                            "check the server, then start again")


def _patience_s(error: BaseException, patience_s: float) -> float:
    """How long this fault is worth trying again; 0 where it will not pass."""
    if isinstance(error, _UNREACHABLE):
        return min(patience_s, PATIENCE_UNREACHABLE_S)
    if isinstance(error, faults.ClientError):
        busy = _status(error) >= 500 or _status(error) == 429 or error.response["Error"].get("Code") in _BUSY_CODES
        return patience_s if busy else 0
    return patience_s if isinstance(error, _BROKEN) else 0


def _status(error: faults.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _whole_body(reply: dict) -> bytes:
    data = reply["Body"].read()
    if len(data) != reply["ContentLength"]:
        raise ShortBody(f"{len(data)} of {reply['ContentLength']} bytes")
    return data


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _region(bucket: str) -> str:
    """The configured region, else the bucket's own, which AWS tells."""
    configured = os.environ.get("AWS_REGION") or boto3.Session().region_name
    return configured or ("us-east-1" if _endpoint() else pyarrow.fs.resolve_s3_region(bucket))


_creating = threading.Lock()  # boto3 makes clients unsafely, and uses them safely, from several threads


def _client(attempts: int = 1) -> Any:
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _creating:
        return _client_of(os.getpid(), environment, attempts)  # connections do not survive a fork


@lru_cache(maxsize=8)
def _client_of(pid: int, environment: tuple, attempts: int) -> Any:
    config = Config(connect_timeout=4, read_timeout=15, max_pool_connections=64, signature_version="s3v4",
                    retries={"total_max_attempts": attempts, "mode": "standard"},
                    request_checksum_calculation="when_required", response_checksum_validation="when_required")
    try:
        region = os.environ.get("AWS_REGION") or boto3.Session().region_name or "us-east-1"
        return boto3.Session().client("s3", endpoint_url=_endpoint(), region_name=region, config=config)
    except ValueError as error:  # botocore says so for an endpoint that is no URL
        raise StorageError("AWS_ENDPOINT_URL", f"'{_endpoint()}' is not usable ({error})",
                           "write http://HOST:PORT or https://HOST") from error
