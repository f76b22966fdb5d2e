"""Refuse a cloud's metadata service as an S3 endpoint; it would hand out credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

from rankmill.errors import StorageRefused
from rankmill.metadata_service import is_metadata_service

NO_URL = "the S3 endpoint is not a URL; set AWS_ENDPOINT_URL_S3 to one like http://host:9000"


def check_endpoint(url: str) -> None:
    """Refuse a metadata address in any notation, and a name that resolves to one.

    Raises:
        StorageRefused: the URL is wrong or its host is a metadata service. The message names only
            the host, because the URL may hold a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # urlsplit itself does not check it
    except ValueError as error:
        raise StorageRefused(NO_URL) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StorageRefused(NO_URL)
    if is_metadata_service(parts.hostname):
        raise StorageRefused(
            f"{parts.hostname} is the address of a cloud's metadata service, not of an S3 store; "
            "correct AWS_ENDPOINT_URL_S3"
        )
