"""Data sets of the hub are read through its client, from a small hub on loopback."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.jobs.check import check
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError, NotAllowed, StorageRefused, StorageUnavailable
from rankmill.settings import settings
from tests.support.hub import Hub, use_hub
from tests.support.inputs import pairs, read_output
from tests.support.shards import job_over, run_all

REPO = "hf://datasets/owner/pairs"


class HubOfDatasets(ThreadingHTTPServer):
    """Answers as the hub does for one data set.

    Attributes:
        files: by path.
        status: the answer to every request, if it is not 200.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: HubOfDatasets
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(self.rfile.read(length).decode())

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self, body: str = "") -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if self.server.status != 200:
            self._send(self.server.status, b"{}")
        elif path.startswith("api/datasets/owner/pairs/paths-info/"):
            wanted = [part.partition("=")[2] for part in unquote(body).split("&")]
            if body.startswith("{"):
                wanted = json.loads(body)["paths"]
            self._json([self._file(name) for name in wanted if name in self.server.files])
        elif path.startswith("api/datasets/owner/pairs/tree/main"):
            folder = path.removeprefix("api/datasets/owner/pairs/tree/main").strip("/")
            inside = [name for name in self.server.files if name.startswith(folder)]
            folders = {name.rpartition("/")[0] for name in inside} - {"", folder}
            listed = [{"type": "directory", "path": each, "oid": each} for each in folders]
            self._json([*map(self._file, inside), *listed])
        elif path.startswith("api/datasets/owner/pairs"):
            self._json({"id": "owner/pairs", "sha": "0" * 40})
        elif path.startswith("datasets/owner/pairs/resolve/main/"):
            content = self.server.files[path.removeprefix("datasets/owner/pairs/resolve/main/")]
            first, last = 0, len(content) - 1
            if wanted_range := self.headers["Range"]:
                start, _, stop = wanted_range.removeprefix("bytes=").partition("-")
                first, last = int(start), min(last, int(stop or last))
            self._send(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}")
        else:
            self._send(404, b"{}", code="RepoNotFound")

    def _file(self, name: str) -> dict[str, Any]:
        content = self.server.files[name]
        return {
            **{"type": "file", "path": name, "size": len(content)},
            "oid": hashlib.sha1(content).hexdigest(),
        }

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, content_range: str = "", code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        if content_range:
            self.send_header("Content-Range", content_range)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubOfDatasets]:
    server = HubOfDatasets()
    Thread(target=server.serve_forever, daemon=True).start()
    use_hub(Hub(url=f"http://127.0.0.1:{server.server_port}"), monkeypatch)
    storage.reconnect()
    yield server
    server.shutdown()
    server.server_close()
    storage.reconnect()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=5)
    return sink.getvalue()


def test_a_job_reads_a_folder_of_a_data_set(hub: HubOfDatasets, tmp_path: Path) -> None:
    rows = pairs(4, 5)
    hub.files |= {
        "data/train-00000-of-00002.parquet": parquet(rows[:10]),
        "data/train-00001-of-00002.parquet": parquet(rows[10:]),
        "README.md": b"# Pairs\n",
    }
    job = job_over(Path("in"), tmp_path, input_uri=f"{REPO}/data", shard_pairs=7)
    run_all(job)
    assert {row["doc_id"] for row in read_output(tmp_path / "out")} == {
        row["doc_id"] for row in rows
    }
    assert [file.uri for file in job.plan.files] == [
        f"{REPO}/data/train-0000{n}-of-00002.parquet" for n in (0, 1)
    ]
    hub.files["data/train-00001-of-00002.parquet"] = parquet(rows[5:15])
    with pytest.raises(InputError, match="changed or was removed"):
        run_all(job)


def test_a_file_is_read_at_any_place(hub: HubOfDatasets) -> None:
    hub.files["a.txt"] = bytes(range(256)) * 64
    file = storage.stat(f"{REPO}/a.txt")
    with storage.open_file(file) as content:
        content.seek(-300, 2)
        assert content.read() == hub.files["a.txt"][-300:]
        content.seek(5)
        assert content.read(3) == b"\x05\x06\x07"
    assert storage.read_bytes(f"{REPO}/a.txt") == hub.files["a.txt"]
    assert storage.read_bytes(f"{REPO}/b.txt") is None
    assert not storage.exists(f"{REPO}/data")


def spec(**options: str) -> JobSpec:
    return JobSpec(
        **{"input_uri": f"{REPO}/a.parquet", "output_uri": "/tmp/out", "model_id": "null"} | options
    )


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (401, StorageRefused, r"the hub refuses it \(401\); is HF_TOKEN set"),
        (403, StorageRefused, r"the hub refuses it \(403\)"),
        (500, StorageUnavailable, "the hub answers 500"),
    ],
)
def test_a_hub_that_refuses_is_named(
    hub: HubOfDatasets, status: int, kind: type[Exception], why: str
) -> None:
    hub.status = status
    with pytest.raises(kind, match=why):
        check(spec())


def test_places_that_are_no_input_are_refused(
    hub: HubOfDatasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("hf://owner/model/a.parquet", "hf://datasets/owner", "hf://datasets//a/b"):
        with pytest.raises(InputError, match="write hf://datasets/OWNER/NAME"):
            check(spec(input_uri=place))
    with pytest.raises(StorageRefused, match="has no such data set or revision, or it needs"):
        check(spec(input_uri="hf://datasets/owner/other/a.parquet"))
    with pytest.raises(InputError, match="no such file"):
        check(spec())
    with pytest.raises(StorageRefused, match="hf:// is only read"):
        storage.write_bytes(f"{REPO}/a.txt", b"a")
    monkeypatch.setenv("RANKMILL_ALLOWED_PREFIXES", "/data,hf://datasets/owner/own")
    settings.cache_clear()
    for place in (f"{REPO}/a.parquet", "hf://datasets/owner/own/../pairs/a.parquet"):
        with pytest.raises(NotAllowed):
            storage.stat(place)
    settings.cache_clear()
