"""Make the process's boto3 client, from the environment and the files that it names."""

from __future__ import annotations

import os
import threading
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, CredentialRetrievalError
from botocore.utils import determine_content_length

from rankmill.errors import StorageRefused
from rankmill.settings import settings
from rankmill.storage.endpoint import NO_URL, check_endpoint
from rankmill.storage.s3_errors import one_line

_AT_ONCE_BYTES = 4 * 2**20


class S3Client:
    """The boto3 client of a process, shared by its threads and made at its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def client(self) -> Any:
        """The client.

        Raises:
            StorageRefused: the environment, or the files that it names, make no client.
        """
        with self._lock:
            if self._made is None:
                self._made = _new_client()
            return self._made

    def renew(self) -> None:
        """Make a new client at the next use, which asks for credentials again."""
        with self._lock:
            self._made = None


def _new_client() -> Any:
    try:
        client = _session().client("s3", config=_config())
    except CredentialRetrievalError:  # the source of the credentials may answer next time
        raise
    except BotoCoreError as error:
        raise StorageRefused(f"S3 cannot be set up: {one_line(error)}") from error
    except ValueError as error:  # it quotes the endpoint, which may hold a password
        raise StorageRefused(f"{NO_URL}, or AWS_REGION if it is empty") from error
    check_endpoint(client.meta.endpoint_url)
    client.meta.events.register("before-sign.s3.PutObject", _send_at_once)
    if settings().s3_requester_pays:
        client.meta.events.register("before-sign.s3", _add_payer)
    return client


def _session() -> Any:
    # boto3 itself reads only AWS_DEFAULT_REGION and the profile; other SDKs read AWS_REGION first.
    return boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)


def _config() -> Config:
    chosen = settings()
    options: dict[str, Any] = {}
    if chosen.s3_unsigned:
        options["signature_version"] = UNSIGNED
    if chosen.s3_addressing != "auto":
        options["s3"] = {"addressing_style": chosen.s3_addressing}
    if chosen.s3_checksums != "auto":
        options["request_checksum_calculation"] = chosen.s3_checksums
        options["response_checksum_validation"] = chosen.s3_checksums
    return Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 6},
        **options,
    )


def _send_at_once(request: Any, **_: Any) -> None:
    """Send a small file without asking the store first, which takes a round trip."""
    n_bytes = determine_content_length(request.body)
    if n_bytes is not None and n_bytes <= _AT_ONCE_BYTES:
        del request.headers["Expect"]


def _add_payer(request: Any, **_: Any) -> None:
    """Accept the costs of a request, by a header that is signed with it."""
    request.headers["x-amz-request-payer"] = "requester"


def connection_options() -> dict[str, str]:
    """Return the settings of S3 for a library with its own client, such as deltalake.

    The keys are the names of AWS's environment variables, as the crate object_store reads them.

    Raises:
        StorageRefused: no credentials are found, or the environment makes no client.
    """
    chosen, meta = settings(), _new_client().meta
    options = {"AWS_REGION": meta.region_name or "us-east-1", "AWS_ENDPOINT_URL": meta.endpoint_url}
    if meta.endpoint_url.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    if chosen.s3_addressing == "virtual":
        options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "true"
    if chosen.s3_requester_pays:
        options["AWS_REQUEST_PAYER"] = "true"
    if chosen.s3_unsigned:
        return options | {"AWS_SKIP_SIGNATURE": "true"}
    credentials = _session().get_credentials()
    if credentials is None:
        raise StorageRefused("S3 cannot be set up: no credentials are found")
    keys = credentials.get_frozen_credentials()
    options |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    return options | ({"AWS_SESSION_TOKEN": keys.token} if keys.token else {})
