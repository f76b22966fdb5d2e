"""An S3 endpoint for tests, with a proxy before it that fails as told."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from rankmill import storage
from tests.s3 import BUCKET, Faults, faulty_proxy, s3_endpoint, s3_environment


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_endpoint() as url:
        yield url


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def s3(endpoint: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket behind the proxy."""
    with faulty_proxy(endpoint, faults) as proxy:
        for name, value in s3_environment(proxy).items():
            monkeypatch.setenv(name, value)
        storage._s3.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        storage.remove(f"s3://{BUCKET}")
        storage.remove_unfinished(f"s3://{BUCKET}")
        faults.n_requests = 0
        yield f"s3://{BUCKET}"
        faults.planned.clear()
        storage._s3.cache_clear()
