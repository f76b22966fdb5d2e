"""Objects in S3 and compatible stores, by boto3.

A file appears by one put, or by the completion of a multipart upload that is aborted if it fails.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rankmill.errors import (
    InputError,
    NoConditionalPuts,
    StorageRefused,
    StorageUnavailable,
)
from rankmill.storage.allowed import check_key
from rankmill.storage.glob import first_letters
from rankmill.storage.protocol import FileStat, Published, Store, Write, check_whole
from rankmill.storage.ranges import RangeFile
from rankmill.storage.s3_client import S3Client
from rankmill.storage.s3_errors import (
    NO_UPLOADS,
    NOT_THERE,
    THERE_ALREADY,
    CredentialsExpired,
    error_code,
    s3_errors,
)

_PART_BYTES = 16 * 2**20
_IN_MEMORY_BYTES = 64 * 2**20
_TAIL_BYTES = 64 * 1024  # holds most Parquet footers, so that each needs one request

_BUCKET = re.compile(r"[\w.-]+|arn:.+", re.ASCII)


class S3Store(Store):
    """The store of `s3://` places."""

    def __init__(self) -> None:
        self._connection = S3Client()

    def absolute(self, uri: str) -> str:
        """Return `s3://bucket/key` without a `/` at the end."""
        bucket, key = _place(uri)
        return f"s3://{bucket}/{key}".rstrip("/")

    def resolved(self, uri: str) -> str:
        """Return the absolute place; there are no links."""
        return self.absolute(uri)

    def publish(self, uri: str, write: Write, *, replace: bool) -> Published | None:
        """Put the object, in parts if it is large; conditionally with `replace=False`."""
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            with s3_errors("cannot write the temporary file of", uri):
                write(file)
                n_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
                file.seek(0)
            with self._errors("cannot write", uri):
                try:
                    self._put(*_place(uri), cast(BinaryIO, file), n_bytes, replace=replace)
                except ClientError as error:
                    if not replace and error_code(error) in THERE_ALREADY:
                        return None
                    if not replace and error_code(error) == "NotImplemented":
                        raise NoConditionalPuts(uri) from error
                    raise
        return Published(n_bytes, sha256)

    def read_bytes(self, uri: str) -> bytes | None:
        """Return the content; None if there is no object."""
        bucket, key = _place(uri)
        with self._errors("cannot read", uri):
            try:
                answer = self._connection.client.get_object(Bucket=bucket, Key=key)
                check_whole(uri, answer["ContentLength"])
                return cast(bytes, answer["Body"].read())
            except ClientError as error:
                if error_code(error) in NOT_THERE:
                    return None
                raise

    def open(self, file: FileStat) -> BinaryIO:
        """Open the object; a read fails if its ETag has changed."""
        _place(file.uri)  # refuse a wrong name here, not at the first read
        return cast(BinaryIO, _Object(self, file))

    def stat(self, uri: str) -> FileStat | None:
        """Return size and ETag; None if there is no object."""
        bucket, key = _place(uri)
        if not key:
            return None
        with self._errors("cannot read", uri):
            try:
                head = self._connection.client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error_code(error) in NOT_THERE:
                    return None
                raise
        return FileStat(uri, head["ContentLength"], head["ETag"])

    def names(self, uri: str, start: str = "") -> list[str]:
        """Return the next part of each key below the prefix, sorted."""
        bucket, prefix = _folder(uri)
        names = set()
        for page in self._pages(uri, Bucket=bucket, Prefix=prefix + start, Delimiter="/"):
            names |= {entry["Key"][len(prefix) :] for entry in page.get("Contents", ())}
            names |= {entry["Prefix"][len(prefix) : -1] for entry in page.get("CommonPrefixes", ())}
        return sorted(names - {""})

    def walk(self, uri: str, pattern: str = "") -> Iterator[FileStat]:
        """Return the objects of the folder whose keys begin like the pattern."""
        bucket, prefix = _folder(uri)
        for page in self._pages(uri, Bucket=bucket, Prefix=prefix + first_letters(pattern)):
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a folder's marker
                    place = f"s3://{bucket}/{entry['Key']}"
                    yield FileStat(place, entry["Size"], entry["ETag"])

    def make_shared(self, uri: str) -> None:
        """Do nothing: an object store has no folders."""

    def remove_file(self, uri: str) -> None:
        """Remove the object if there is one."""
        bucket, key = _place(uri)
        with self._errors("cannot remove", uri):
            self._connection.client.delete_object(Bucket=bucket, Key=key)

    def remove(self, uri: str) -> None:
        """Remove the object of this key, and all objects below it."""
        if self.stat(uri) is not None:  # some stores fail on the removal of a folder
            self.remove_file(uri)
        for file in self.walk(uri):
            self.remove_file(file.uri)

    def remove_empty_folder(self, uri: str) -> None:
        """Do nothing: an object store has no folders."""

    def remove_unfinished(self, uri: str) -> None:
        """Abort the unfinished multipart uploads below the folder, if the store can list them."""
        bucket, prefix = _folder(uri)
        with self._errors("cannot list the uploads of", uri):
            pages = self._connection.client.get_paginator("list_multipart_uploads")
            try:
                for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                    for upload in page.get("Uploads", ()):
                        self._connection.client.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
            except ClientError as error:
                if error_code(error) not in NO_UPLOADS:
                    raise

    def read_range(self, file: FileStat, start: int, stop: int) -> bytes:
        """Return bytes of an object; a broken answer is requested again.

        Raises:
            InputError: the object has changed since `file` was read.
        """
        bucket, key = _place(file.uri)
        with self._errors("cannot read", file.uri):
            try:
                etag, content = self._get_range(bucket, key, file.state, start, stop)
            except ClientError as error:
                if error_code(error) in THERE_ALREADY | NOT_THERE:
                    raise _changed(file) from error
                raise
        if _bare(etag) != _bare(file.state):  # the store ignores If-Match
            raise _changed(file)
        return content

    # boto3 retries a request, but not an answer that breaks off while it is read.
    @retry(
        retry=retry_if_exception_type(BotoCoreError),
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    def _get_range(
        self, bucket: str, key: str, etag: str, start: int, stop: int
    ) -> tuple[str, bytes]:
        answer = self._connection.client.get_object(
            Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=etag
        )
        return str(answer["ETag"]), cast(bytes, answer["Body"].read())

    def _put(self, bucket: str, key: str, file: BinaryIO, n_bytes: int, *, replace: bool) -> None:
        if n_bytes <= _PART_BYTES or not replace:
            condition = {} if replace else {"IfNoneMatch": "*"}
            self._connection.client.put_object(Bucket=bucket, Key=key, Body=file, **condition)
        else:  # aborts the upload if a part of it fails
            self._connection.client.upload_fileobj(
                file, bucket, key, Config=TransferConfig(multipart_chunksize=_PART_BYTES)
            )

    def _pages(self, uri: str, **where: str) -> Iterator[dict[str, Any]]:
        with self._errors("cannot list", uri):
            yield from self._connection.client.get_paginator("list_objects_v2").paginate(**where)

    @contextmanager
    def _errors(self, what: str, uri: str) -> Iterator[None]:
        try:
            with s3_errors(what, uri):
                yield
        except CredentialsExpired as error:
            self._connection.renew()
            raise StorageUnavailable(str(error)) from error


class _Object(RangeFile):
    """An object read by ranges; its last bytes are kept, since Parquet reads them first."""

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


def _place(uri: str) -> _Place:
    """Return the bucket and key of a place, if RANKMILL_ALLOWED_PREFIXES allows it."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket:
        raise InputError(f"{uri}: no bucket; write s3://bucket/key")
    if not _BUCKET.fullmatch(bucket):
        if "@" in uri or ":" in bucket:  # it may hold a secret: do not repeat it
            raise StorageRefused(
                "an s3:// place has no user, password or port in it; write s3://bucket/key"
            )
        raise StorageRefused(f"{uri}: {bucket!r} is not a bucket name; write s3://bucket/key")
    check_key(bucket, key, uri)
    return _Place(bucket, key)


def _folder(uri: str) -> _Place:
    bucket, key = _place(uri)
    return _Place(bucket, key.rstrip("/") + "/" if key else "")


def _changed(file: FileStat) -> InputError:
    return InputError(f"{file.uri} changed or was removed after the job was planned")


def _bare(etag: str) -> str:
    """Return an ETag without quotes and `W/`, which proxies and listings add or remove."""
    return etag.removeprefix("W/").strip('"')
