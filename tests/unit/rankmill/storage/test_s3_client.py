"""The settings of S3 reach the wire, and the other libraries that read S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rankmill import storage
from rankmill.errors import InputError
from rankmill.settings import settings
from tests.support.s3 import s3_environment

Sent = list[tuple[str, str, dict[str, str]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sent]:
    """Start an endpoint that takes everything, and list method, path and headers of requests."""
    seen: Sent = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen.append((self.command, self.path, headers))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "config").write_text("[profile far]\nregion = ap-south-1\n")
    environment = s3_environment(f"http://localhost:{server.server_port}")
    environment |= {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    _forget()
    yield seen
    server.shutdown()
    server.server_close()
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    settings.cache_clear()
    storage.reconnect()


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _forget()


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-north-1"}, "eu-north-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-north-1"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_PROFILE": "far"}, "ap-south-1"),
        ({"AWS_PROFILE": "far", "AWS_REGION": "eu-north-1"}, "eu-north-1"),
    ],
)
def test_the_region_is_in_the_signature(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret"}
    _set(monkeypatch, AWS_SHARED_CREDENTIALS_FILE="/dev/null", **variables, **keys)
    storage.exists("s3://bucket/key")
    [(_, _, headers)] = sent
    assert f"/{region}/s3/aws4_request" in headers["authorization"]
    options = storage.connection_options("s3://bucket/key")
    assert options is not None and options["AWS_REGION"] == region


def test_the_requester_pays_for_every_request(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, RANKMILL_S3_REQUESTER_PAYS="true", AWS_REGION="us-east-1")
    _use_all()
    assert {method for method, *_ in sent} == {"HEAD", "GET", "PUT", "DELETE"}
    for _, _, headers in sent:
        assert headers["x-amz-request-payer"] == "requester"
        assert "x-amz-request-payer" in headers["authorization"].partition("SignedHeaders=")[2]
    options = storage.connection_options("s3://bucket/key")
    assert options is not None and options["AWS_REQUEST_PAYER"] == "true"


def test_no_header_says_that_the_requester_pays_by_default(sent: Sent) -> None:
    _use_all()
    assert not any("x-amz-request-payer" in headers for _, _, headers in sent)
    assert all("authorization" in headers for _, _, headers in sent)


def test_unsigned_requests_need_no_credentials(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    _set(monkeypatch, RANKMILL_S3_UNSIGNED="true", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
    _use_all()
    assert sent and not any("authorization" in headers for _, _, headers in sent)
    options = storage.connection_options("s3://bucket/key")
    assert options is not None and options["AWS_SKIP_SIGNATURE"] == "true"
    assert "AWS_SECRET_ACCESS_KEY" not in options


def test_a_requester_that_pays_must_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_S3_UNSIGNED", "1")
    monkeypatch.setenv("RANKMILL_S3_REQUESTER_PAYS", "1")
    settings.cache_clear()
    with pytest.raises(InputError, match=r"RANKMILL_S3_UNSIGNED: .*RANKMILL_S3_REQUESTER_PAYS"):
        settings()
    monkeypatch.undo()
    settings.cache_clear()


def test_the_bucket_is_in_the_path_or_in_the_host(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = os.environ["AWS_ENDPOINT_URL_S3"]  # it gets the whole URL, and no name is resolved
    _set(monkeypatch, HTTP_PROXY=proxy, AWS_ENDPOINT_URL_S3="http://store.invalid")
    _set(monkeypatch, RANKMILL_S3_ADDRESSING="path")
    storage.exists("s3://bucket/key")
    _set(monkeypatch, RANKMILL_S3_ADDRESSING="virtual")
    storage.exists("s3://bucket/key")
    paths = [path for _, path, _ in sent]
    assert paths == ["http://store.invalid/bucket/key", "http://bucket.store.invalid/key"]
    options = storage.connection_options("s3://bucket/key")
    assert options is not None and options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] == "true"


def test_checksums_are_left_out_for_stores_that_refuse_them(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes("s3://bucket/key", b"content")
    _set(monkeypatch, RANKMILL_S3_CHECKSUMS="when_required")
    storage.write_bytes("s3://bucket/key", b"content")
    storage.read_bytes("s3://bucket/key")
    with_checksum, without, read = (headers for _, _, headers in sent)
    assert any(name.startswith("x-amz-checksum") for name in with_checksum)
    for headers in (without, read):
        assert not any(name.startswith(("x-amz-checksum", "x-amz-trailer")) for name in headers)
    assert "aws-chunked" not in without.get("content-encoding", "")


def _use_all() -> None:
    storage.exists("s3://bucket/key")
    storage.read_bytes("s3://bucket/key")
    storage.write_bytes("s3://bucket/key", b"")
    storage.remove_file("s3://bucket/key")
