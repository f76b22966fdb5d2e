"""Make the process's boto3 client, from the environment and the files that it names."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, CredentialRetrievalError

from rankmill.errors import StorageRefused
from rankmill.storage.endpoint import NO_URL, check_endpoint
from rankmill.storage.s3_errors import one_line


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
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 6},
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except CredentialRetrievalError:  # the source of the credentials may answer next time
        raise
    except BotoCoreError as error:
        raise StorageRefused(f"S3 cannot be set up: {one_line(error)}") from error
    except ValueError as error:  # it quotes the endpoint, which may hold a password
        raise StorageRefused(f"{NO_URL}, or AWS_REGION if it is empty") from error
    check_endpoint(client.meta.endpoint_url)
    return client


def connection_options() -> dict[str, str]:
    """Return region, endpoint and credentials for a library with its own S3 client.

    The keys are the names of AWS's environment variables.

    Raises:
        StorageRefused: no credentials are found, or the environment makes no client.
    """
    meta = _new_client().meta
    options = {"AWS_REGION": meta.region_name or "us-east-1", "AWS_ENDPOINT_URL": meta.endpoint_url}
    if meta.endpoint_url.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    credentials = boto3.session.Session().get_credentials()
    if credentials is None:
        raise StorageRefused("S3 cannot be set up: no credentials are found")
    keys = credentials.get_frozen_credentials()
    options |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    return options | ({"AWS_SESSION_TOKEN": keys.token} if keys.token else {})
