"""Objects in S3 and what speaks its protocol; boto3 resolves credentials, region and endpoint.

A part appears by one put, or by the completion of a multipart upload that is aborted if it fails.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointProviderError,
    NoCredentialsError,
    ParamValidationError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rankmill.errors import (
    InputError,
    NoConditionalPuts,
    RankmillError,
    StorageRefused,
    StorageUnavailable,
)
from rankmill.storage.allowed import check_key
from rankmill.storage.endpoint import NO_URL, check_endpoint
from rankmill.storage.glob import first_letters
from rankmill.storage.protocol import FileStat, Published, Store, Write
from rankmill.storage.ranges import RangeFile

_PART_BYTES = 16 * 2**20
_IN_MEMORY_BYTES = 64 * 2**20
_TAIL_BYTES = 64 * 1024  # holds most footers, so that planning needs one request for each

_BUCKET = re.compile(r"[\w.-]+|arn:.+", re.ASCII)

_REFUSED = {
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "AccountProblem": "access is denied",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "that is no bucket's name",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "QuotaExceeded": "the quota is used up",
    "NotImplemented": "the store cannot do that",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_NOT_THERE = {"NoSuchKey", "404", "NotFound"}
_THERE_ALREADY = {"PreconditionFailed", "412", "ConditionalRequestConflict"}


class S3Store(Store):
    def __init__(self) -> None:
        self._own = _Client()

    def absolute(self, uri: str) -> str:
        bucket, key = _place(uri)
        return f"s3://{bucket}/{key}".rstrip("/")

    def resolved(self, uri: str) -> str:
        return self.absolute(uri)

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            with _errors("cannot write the temporary file of", uri):
                write(file)
                n_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
                file.seek(0)
            with self._errors("cannot write", uri):
                try:
                    self._put(*_place(uri), cast(BinaryIO, file), n_bytes, replace=replace)
                except ClientError as error:
                    if not replace and _code(error) in _THERE_ALREADY:
                        return None
                    if not replace and _code(error) == "NotImplemented":
                        raise NoConditionalPuts(uri) from error
                    raise
        return Published(n_bytes, sha256)

    def read_bytes(self, uri: str) -> bytes | None:
        bucket, key = _place(uri)
        with self._errors("cannot read", uri):
            try:
                answer = self._own.client.get_object(Bucket=bucket, Key=key)
                return cast(bytes, answer["Body"].read())
            except ClientError as error:
                if _code(error) in _NOT_THERE:
                    return None
                raise

    def open(self, file: FileStat) -> BinaryIO:
        _place(file.uri)  # told at once, not at the first read
        return cast(BinaryIO, io.BufferedReader(_Object(self, file), buffer_size=1))

    def stat(self, uri: str) -> FileStat | None:
        bucket, key = _place(uri)
        if not key:
            return None
        with self._errors("cannot read", uri):
            try:
                head = self._own.client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _code(error) in _NOT_THERE:
                    return None
                raise
        return FileStat(uri, head["ContentLength"], head["ETag"])

    def names(self, uri: str, start: str = "") -> list[str]:
        bucket, prefix = _folder(uri)
        found = set()
        for page in self._pages(uri, Bucket=bucket, Prefix=prefix + start, Delimiter="/"):
            found |= {entry["Key"][len(prefix) :] for entry in page.get("Contents", ())}
            found |= {entry["Prefix"][len(prefix) : -1] for entry in page.get("CommonPrefixes", ())}
        return sorted(found - {""})

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        bucket, prefix = _folder(uri)
        for page in self._pages(uri, Bucket=bucket, Prefix=prefix + first_letters(pattern)):
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a folder's marker
                    place = f"s3://{bucket}/{entry['Key']}"
                    yield FileStat(place, entry["Size"], entry["ETag"])

    def make_shared(self, uri: str) -> None:
        """Nothing to do: a store has keys alone."""

    def remove_file(self, uri: str) -> None:
        bucket, key = _place(uri)
        with self._errors("cannot remove", uri):
            self._own.client.delete_object(Bucket=bucket, Key=key)

    def remove(self, uri: str) -> None:
        if _place(uri).key:
            self.remove_file(uri)
        for file in self.walk(uri):
            self.remove_file(file.uri)

    def remove_empty_folder(self, uri: str) -> None:
        """Nothing to do: a store has keys alone."""

    def remove_unfinished(self, uri: str) -> None:
        bucket, prefix = _folder(uri)
        with self._errors("cannot list the uploads of", uri):
            pages = self._own.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    self._own.client.abort_multipart_upload(
                        Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def read_range(self, file: FileStat, start: int, stop: int) -> bytes:
        """Bytes of an object that must be as `file` says still; an answer cut short is repeated."""
        bucket, key = _place(file.uri)
        with self._errors("cannot read", file.uri):
            try:
                etag, content = self._get_range(bucket, key, file.state, start, stop)
            except ClientError as error:
                if _code(error) in _THERE_ALREADY | _NOT_THERE:
                    raise _changed(file) from error
                raise
        if _bare(etag) != _bare(file.state):  # from a store that knows no If-Match
            raise _changed(file)
        return content

    # boto3 tries a request again by itself, but not an answer that breaks off while it is read.
    @retry(
        retry=retry_if_exception_type(BotoCoreError),
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    def _get_range(
        self, bucket: str, key: str, etag: str, start: int, stop: int
    ) -> tuple[str, bytes]:
        answer = self._own.client.get_object(
            Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=etag
        )
        return str(answer["ETag"]), cast(bytes, answer["Body"].read())

    def _put(self, bucket: str, key: str, file: BinaryIO, n_bytes: int, *, replace: bool) -> None:
        if n_bytes <= _PART_BYTES or not replace:
            condition = {} if replace else {"IfNoneMatch": "*"}
            self._own.client.put_object(Bucket=bucket, Key=key, Body=file, **condition)
        else:  # aborts the upload when a part of it fails
            self._own.client.upload_fileobj(
                file, bucket, key, Config=TransferConfig(multipart_chunksize=_PART_BYTES)
            )

    def _pages(self, uri: str, **where: str) -> Iterator[dict[str, Any]]:
        with self._errors("cannot list", uri):
            yield from self._own.client.get_paginator("list_objects_v2").paginate(**where)

    @contextmanager
    def _errors(self, what: str, uri: str) -> Iterator[None]:
        try:
            with _errors(what, uri):
                yield
        except _CredentialsExpired as error:
            self._own.renew()  # the next try asks boto3 for credentials anew
            raise StorageUnavailable(str(error)) from error


class _Client:
    """The process's boto3 client, which threads may share; made at its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _new_client()
            return self._made

    def renew(self) -> None:
        with self._lock:
            self._made = None


def _new_client() -> Any:
    """
    Raises:
        StorageRefused: the environment or the files that it names make no client.
    """
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 6},
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except CredentialRetrievalError:  # what was asked for them may answer next time
        raise
    except BotoCoreError as error:
        raise StorageRefused(f"S3 cannot be set up: {_one_line(error)}") from error
    except ValueError as error:  # it quotes the endpoint, where a password may stand
        raise StorageRefused(f"{NO_URL}, or AWS_REGION if it is empty") from error
    check_endpoint(client.meta.endpoint_url)
    return client


def connection_options() -> dict[str, str]:
    """What boto3 has found, as libraries that speak to S3 themselves take it.

    Raises:
        StorageRefused: as `_new_client`.
    """
    meta = _new_client().meta
    options = {"AWS_REGION": meta.region_name or "us-east-1", "AWS_ENDPOINT_URL": meta.endpoint_url}
    if meta.endpoint_url.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    found = boto3.session.Session().get_credentials()
    if found is None:
        raise StorageRefused("S3 cannot be set up: no credentials are found")
    keys = found.get_frozen_credentials()
    options |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    return options | ({"AWS_SESSION_TOKEN": keys.token} if keys.token else {})


class _Object(RangeFile):
    """An object read by ranges; its last bytes, which Parquet asks for first, are kept."""

    def __init__(self, store: S3Store, file: FileStat) -> None:
        super().__init__(file.size_bytes)
        self._store = store
        self._file = file
        self._tail: bytes | None = None

    def read_range(self, start: int, stop: int) -> bytes:
        size = self._file.size_bytes
        begin = max(0, size - _TAIL_BYTES)
        if start < begin:
            return self._store.read_range(self._file, start, stop)
        if self._tail is None:
            self._tail = self._store.read_range(self._file, begin, size)
        return self._tail[start - begin : stop - begin]


class _Place(NamedTuple):
    bucket: str
    key: str


class _CredentialsExpired(RankmillError):
    pass


def _place(uri: str) -> _Place:
    """The object or folder that a place names, if it may be touched."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket:
        raise InputError(f"{uri}: no bucket; write s3://bucket/key")
    if not _BUCKET.fullmatch(bucket):
        if "@" in uri or ":" in bucket:  # perhaps of a secret, which is not to be repeated
            raise StorageRefused(
                "an s3:// place has no user, password or port in it; write s3://bucket/key"
            )
        raise StorageRefused(f"{uri}: {bucket!r} is no bucket's name; write s3://bucket/key")
    check_key(bucket, key, uri)
    return _Place(bucket, key)


def _folder(uri: str) -> _Place:
    bucket, key = _place(uri)
    return _Place(bucket, key.rstrip("/") + "/" if key else "")


def _changed(file: FileStat) -> InputError:
    return InputError(f"{file.uri} changed or went after the job was planned")


def _bare(etag: str) -> str:
    """Without quotes and the mark of a weak one, which proxies and listings add or leave out."""
    return etag.removeprefix("W/").strip('"')


def _one_line(error: BotoCoreError) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _errors(what: str, uri: str) -> Iterator[None]:
    """boto3's errors as ours; those that name no reason to give up are worth another try."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _EXPIRED:
            raise _CredentialsExpired(f"{what} {uri}: the credentials have expired") from error
        if code in _REFUSED:
            raise StorageRefused(f"{what} {uri}: {_REFUSED[code]}") from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        kind = StorageRefused if 400 <= status < 500 and status not in (408, 429) else None
        raise (kind or StorageUnavailable)(f"{what} {uri}: {code}") from error
    except (NoCredentialsError, ParamValidationError, EndpointProviderError) as error:
        raise StorageRefused(f"{what} {uri}: {_one_line(error)}") from error
    except BotoCoreError as error:
        raise StorageUnavailable(f"{what} {uri}: {type(error).__name__}") from error
    except OSError as error:
        raise StorageUnavailable(f"{what} {uri}: {error.strerror or error}") from error
