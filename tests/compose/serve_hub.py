"""The tests' hub as a container of its own, with the demo model under another name."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from tests.support.hub import running_hub

FOLDER = Path("/app/models/demo-reranker")


def main() -> None:
    with running_hub("0.0.0.0", 8000) as hub:
        files = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
        hub.publish("acme/tiny", files)
        Event().wait()


if __name__ == "__main__":
    main()
