"""A small hub over HTTP on loopback: a model's commits, ranges, large files on another path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import pytest

Files = dict[str, bytes]


@dataclass
class Hub:
    """A hub's content, and the faults that it shows.

    Attributes:
        commits: by model, newest last; `main` is the newest.
        tags: by model and tag, the commit.
        stall_after: bytes of a large file after which the server sends no more and keeps silent.
        cut_after: bytes of a large file after which it hangs up, once.
        garble: large files arrive with other bytes of the same length.
        card: the front matter of every model's card.
        asked: the path and the Range of every request for a file.
    """

    url: str = ""
    commits: dict[str, dict[str, Files]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    stall_after: int | None = None
    cut_after: int | None = None
    garble: bool = False
    card: dict[str, str] = field(default_factory=lambda: {"license": "mit"})
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def publish(self, model_id: str, files: Files) -> str:
        """Add a commit to main and return its name."""
        before = self.commits.setdefault(model_id, {})
        commit = hashlib.sha1(f"{model_id} {len(before)}".encode()).hexdigest()
        before[commit] = files
        return commit

    def resolve(self, model_id: str, revision: str) -> str | None:
        commits = self.commits[model_id]
        if revision == "main":
            return list(commits)[-1]
        commit = self.tags.get((model_id, revision), revision)
        return commit if commit in commits else None


@contextmanager
def running_hub(host: str = "127.0.0.1", port: int = 0) -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()


def use_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client ask this hub, in this process and in those that it starts."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)


def files_of(folder: Path) -> Files:
    """Return the files of a folder by their paths in it, to publish or to compare."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        model_id = "/".join(parts[2:4] if parts[0] == "api" else parts[1:3])
        if parts[0] not in ("api", "large"):
            model_id = "/".join(parts[:2])
        if model_id not in self.served.commits:
            self._refuse("RepoNotFound")
        elif parts[0] == "api":
            self._describe(model_id, parts[5] if len(parts) > 4 else "main")
        else:
            self._send_file(model_id, parts)

    def _describe(self, model_id: str, revision: str) -> None:
        commit = self.served.resolve(model_id, revision)
        if commit is None:
            self._refuse("RevisionNotFound")
            return
        files = self.served.commits[model_id][commit]
        siblings = [_sibling(name, content) for name, content in files.items()]
        described = {"id": model_id, "sha": commit, "siblings": siblings}
        self._answer(json.dumps({**described, "cardData": self.served.card}).encode())

    def _send_file(self, model_id: str, parts: list[str]) -> None:
        is_large_path = parts[0] == "large"
        commit, name = parts[3], "/".join(parts[4:])
        content = self.served.commits[model_id][commit][name]
        if _is_large(name) and not is_large_path:  # as the hub sends one on to its storage
            self.send_response(302)
            self.send_header("Location", f"/large/{model_id}/{commit}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.served.asked.append((name, self.headers["Range"]))
        if is_large_path and self.served.garble:
            content = bytes(255 - byte for byte in content)
        start = int((self.headers["Range"] or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._send(content[start:], is_large_path)

    def _send(self, content: bytes, is_large: bool) -> None:
        hub = self.served
        try:
            if is_large and hub.cut_after is not None:
                self.wfile.write(content[: hub.cut_after])
                hub.cut_after = None
                self.close_connection = True
            elif is_large and hub.stall_after is not None:
                self.wfile.write(content[: hub.stall_after])
                self.wfile.flush()
                hub.stop.wait(60)
                self.close_connection = True
            else:
                self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has gone

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    described: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
    if _is_large(name):
        sha256 = hashlib.sha256(content).hexdigest()
        described["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
    return described
