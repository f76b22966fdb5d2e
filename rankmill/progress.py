"""How far a running task is, told by Celery's events, which is what Flower sees of it.

Nothing waits for them and nothing depends on them, so a broker that is away loses some.
"""

from __future__ import annotations

import threading
from types import TracebackType

from celery import current_task

from rankmill.broker import app

_EVERY_S = 2.0


class ProgressEvents:
    """Held in a `with` block; while it lasts the task's state in Flower is that of its events.

    A thread sends them, for sending waits as long as the broker is away, and a shard must not.
    """

    def __init__(self, state: str, worker: str | None, about: dict[str, str]) -> None:
        self._type = f"task-{state}"
        self._worker = worker
        self._about = about
        self._told = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="progress", daemon=True)

    @classmethod
    def of_this_task(cls, state: str) -> ProgressEvents:
        """Those of the Celery task that this thread runs; outside of one nothing is sent."""
        if not current_task:
            return cls(state, None, {})
        request = current_task.request
        # Its name too, for a Flower that was not there when the task was received.
        about = {"uuid": request.id, "name": current_task.name, "kwargs": request.kwargsrepr}
        return cls(state, request.hostname, about)

    def tell(self, progress: str) -> None:
        """Shown as the task's result until it has one."""
        self._told = progress

    def __enter__(self) -> ProgressEvents:
        if self._about:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._about:
            self._thread.join(timeout=1.0)

    def _send(self) -> None:
        # Also what has not changed, for a Flower that was not there when it was told.
        while not self._stop.wait(_EVERY_S):
            try:
                with app().events.default_dispatcher(hostname=self._worker) as dispatcher:
                    dispatcher.send(self._type, **self._about, result=self._told)
            except Exception:  # of whichever library: it is only for looking at
                continue
