"""The S3 store: requests are retried, downloads verified, and what went wrong in the end is one line.

Endpoint, credentials and region are those of every AWS tool (``AWS_*`` variables, ``~/.aws``). ``AWS_MAX_ATTEMPTS``
(default 5) bounds the attempts. ``RAMFLOW_S3_TIMEOUT`` (default 60) is how many seconds the store may take to answer,
and to bring each 4 MiB.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from botocore import exceptions as botocore_errors
from botocore.config import Config
from urllib3.exceptions import HTTPError

from ramflow.errors import NoSuchObject, UserError
from ramflow.progress import say

ATTEMPTS = 5
TIMEOUT = 60.0
CHUNK = 4 << 20
LONGEST_WAIT = 20.0
MOST_KEYS = 1000

MEANING = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "PreconditionFailed": "another process has written it meanwhile",
    "QuotaExceeded": "the quota is used up: free some room, or ask for more",
    "InvalidRange": "the object is shorter than it was: it changed meanwhile",
    "AccessDenied": "access denied: these credentials have no right to this",
    "ExpiredToken": "the credentials have expired: get new ones",
    "ExpiredTokenException": "the credentials have expired: get new ones",
    "RequestExpired": "the credentials have expired: get new ones",
    "InvalidAccessKeyId": "wrong credentials: check the access key",
    "InvalidToken": "wrong credentials: check the session token",
    "SignatureDoesNotMatch": "wrong credentials: check the secret key",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "SlowDown": "the store asks to slow down: try later, or from fewer machines",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_DEFAULT_REGION",
}


class _BadBodyError(Exception):
    """A download whose bytes are not those of the object."""


BODY_ERRORS = (
    _BadBodyError,
    HTTPError,
    botocore_errors.HTTPClientError,
    botocore_errors.IncompleteReadError,
    botocore_errors.FlexibleChecksumError,
)


class Store:
    """The S3 store that the environment leads to. Safe for threads; each process needs its own.

    Raises, in every method:
        UserError: one line with the address and what happened, after the retries that make sense.
    """

    def __init__(self) -> None:
        self.timeout = _timeout()
        own_endpoint = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        try:
            session = botocore.session.get_session()
            self.attempts: int = session.get_config_variable("max_attempts") or ATTEMPTS
            config = Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"} if own_endpoint else {},
                retries={"mode": "standard", "total_max_attempts": self.attempts},
                connect_timeout=min(self.timeout, 10.0),
                read_timeout=self.timeout,
            )
            self._client: Any = boto3.Session(botocore_session=session).client("s3", config=config)
        except (ValueError, botocore_errors.BotoCoreError) as error:
            raise UserError(f"the settings for S3 (AWS_* variables, ~/.aws) are wrong: {error}") from None

    def objects(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and bytes of every object whose key starts with ``prefix``, in order of the keys."""
        with named(f"s3://{bucket}/{prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"], item["Size"]

    def get(
        self,
        bucket: str,
        key: str,
        file: BinaryIO,
        *,
        span: tuple[int, int] | None = None,
        sha256: str | None = None,
        reserve: Callable[[int], None] | None = None,
    ) -> None:
        """Write an object to ``file``, from its start.

        The length and the store's own checksum are verified, and the digest where one is known; a body that is cut
        short, too slow or wrong is fetched again.

        Args:
            bucket: of the object.
            key: of the object.
            file: seekable; its content after an error is not defined.
            span: first byte and number of bytes; the whole object where it is not given.
            sha256: hex digest the bytes must have; of a whole object, the one that :meth:`put` noted if not given.
            reserve: called with the length before the bytes come.
        """
        address = f"s3://{bucket}/{key}"
        part = {"Range": f"bytes={span[0]}-{sum(span) - 1}"} if span else {}
        for attempt in range(1, self.attempts + 1):
            with named(address):
                answer = self._client.get_object(Bucket=bucket, Key=key, **part)
            if span:
                answer["Metadata"] = {}
            try:
                return self._receive(answer, file, sha256, reserve)
            except BODY_ERRORS as error:
                if attempt == self.attempts:
                    raise UserError(f"{address}: {reason(error)}, {attempt} times") from None
                say(f"{address}: {reason(error)}; trying again ({attempt + 1} of {self.attempts})")
                time.sleep(random.random() * min(2.0 ** (attempt - 1), LONGEST_WAIT))

    def put(self, path: Path, bucket: str, key: str, *, sha256: str | None = None) -> None:
        """Copy a file to an object, with its sha256 in the object's metadata; the store verifies the bytes.

        Args:
            path: of the file.
            bucket: of the object.
            key: of the object.
            sha256: hex digest that the file must have; nothing is sent where it has another.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 not in (None, digest):
            raise UserError(f"{path}: wrong checksum (damaged on this disk); not copied to s3://{bucket}/{key}")
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": digest}}
        with named(f"s3://{bucket}/{key}"):
            self._client.upload_file(str(path), bucket, key, ExtraArgs=extra)

    def create(self, data: bytes, bucket: str, key: str) -> None:
        """Make an object that is not there yet, with its sha256 in the metadata.

        Where the store knows conditions, an object of other bytes is never replaced: an error. Equal bytes are as good.
        """
        digest, address = hashlib.sha256(data).hexdigest(), f"s3://{bucket}/{key}"
        request = {"Bucket": bucket, "Key": key, "Body": data, "ChecksumAlgorithm": "SHA256",
                   "Metadata": {"sha256": digest}}  # fmt: skip
        with named(address):
            try:
                self._client.put_object(**request, IfNoneMatch="*")
            except botocore_errors.ClientError as error:
                code = error.response["Error"].get("Code")
                if code == "NotImplemented":
                    self._client.put_object(**request)
                elif code != "PreconditionFailed" or self.digest(bucket, key) != digest:
                    raise

    def digest(self, bucket: str, key: str) -> str | None:
        """The hex sha256 that :meth:`put` or :meth:`create` noted; None: there is no such object, or it has none."""
        with named(f"s3://{bucket}/{key}"):
            try:
                answer = self._client.head_object(Bucket=bucket, Key=key)
            except botocore_errors.ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") != 404:
                    raise
                return None
        return str(answer["Metadata"]["sha256"]) if "sha256" in answer["Metadata"] else None

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects, a request a thousand; those that are not there count as removed."""
        for start in range(0, len(keys), MOST_KEYS):
            names = [{"Key": key} for key in keys[start : start + MOST_KEYS]]
            with named(f"s3://{bucket}/{keys[start]}"):
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise UserError(f"s3://{bucket}/{error['Key']}: not removed ({error.get('Code')})")

    def abort_uploads(self, bucket: str, prefix: str) -> None:
        """Forget what uploads in parts, broken off by a kill, have left below ``prefix``: it takes room, unseen."""
        with named(f"s3://{bucket}/{prefix}"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    self._client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _receive(
        self, answer: dict[str, Any], file: BinaryIO, sha256: str | None, reserve: Callable[[int], None] | None
    ) -> None:
        digest = hashlib.sha256()
        file.seek(0)
        file.truncate()
        with answer["Body"] as raw:
            if reserve is not None:
                reserve(answer["ContentLength"])
            while block := self._read(answer["Body"], raw):
                digest.update(block)
                file.write(block)
        file.flush()
        expected = sha256 or answer["Metadata"].get("sha256")
        if expected and digest.hexdigest() != expected:
            raise _BadBodyError(f"wrong checksum (sha256 {digest.hexdigest()[:12]} instead of {expected[:12]})")

    def _read(self, body: Any, raw: Any) -> bytes:
        """The next bytes. The socket's own timeout sees only silence; this also ends a body that trickles."""
        late = threading.Event()

        def end() -> None:
            late.set()
            with suppress(OSError, RuntimeError, ValueError):  # it has just ended by itself
                raw.shutdown()

        timer = threading.Timer(self.timeout, end)
        timer.daemon = True
        timer.start()
        try:
            block: bytes = body.read(CHUNK)
        except BODY_ERRORS:
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():
            raise _BadBodyError(f"too slow (less than 4 MiB in {self.timeout:g} s)")
        return block


def _timeout() -> float:
    text = os.environ.get("RAMFLOW_S3_TIMEOUT") or str(TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise UserError(f"RAMFLOW_S3_TIMEOUT={text}: a number of seconds above 0 is expected")
    return seconds


@contextmanager
def named(address: str) -> Iterator[None]:
    """Make an error of the store one line about ``address``."""
    try:
        yield
    except (botocore_errors.BotoCoreError, botocore_errors.ClientError, Boto3Error, HTTPError) as error:
        absent = isinstance(error, botocore_errors.ClientError) and error.response["Error"].get("Code") == "NoSuchKey"
        raise (NoSuchObject if absent else UserError)(f"{address}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """What went wrong, in words a user can act on."""
    if isinstance(error, Boto3Error) and error.__context__ is not None:  # S3UploadFailedError only repeats its cause
        error = error.__context__
    if isinstance(error, botocore_errors.ClientError):
        return _refusal(error)
    system = _system_error(error)
    match error:
        case botocore_errors.NoCredentialsError() | botocore_errors.PartialCredentialsError():
            return "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        case botocore_errors.ConnectTimeoutError() | botocore_errors.ReadTimeoutError():
            return "timeout: the store does not answer"
        case botocore_errors.EndpointConnectionError():
            url = urlsplit(error.kwargs["endpoint_url"])
            return f"no connection to {url.scheme}://{url.netloc} ({system or 'is it running?'})"
        case botocore_errors.ConnectionClosedError():
            return f"the store broke off the connection ({system or 'no answer'})"
        case botocore_errors.IncompleteReadError() | botocore_errors.ResponseStreamingError():
            return f"the answer is cut short ({system or str(error).rstrip('.')})"
        case botocore_errors.FlexibleChecksumError():
            return "wrong checksum (damaged there or on the way)"
    return " ".join(str(error).split()) or type(error).__name__


def _refusal(error: botocore_errors.ClientError) -> str:
    response: Any = error.response
    code, attempts = response["Error"].get("Code", ""), response["ResponseMetadata"].get("RetryAttempts", 0) + 1
    status = response["ResponseMetadata"].get("HTTPStatusCode", 0)
    said = response["Error"].get("Message") or "the store refused"
    meaning = MEANING.get(code) or ("the store failed, try later" if status >= 500 else said)
    numbers = " ".join(dict.fromkeys([str(status), code]))
    return f"{meaning} ({numbers}{f', {attempts} times' if attempts > 1 else ''})"


def _system_error(error: BaseException | None) -> str:
    """The operating system's words behind an error of botocore and urllib3, or nothing."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror.lower()
        seen.append(error)
        inner = getattr(error, "kwargs", {}).get("error") or getattr(error, "reason", None)
        error = inner if isinstance(inner, BaseException) else (error.__cause__ or error.__context__)
    return ""
