"""Send a running task's progress as Celery events, which Flower shows.

Nothing waits for these events and nothing depends on them, so a broker that is away loses some.
"""

from __future__ import annotations

import threading
from types import TracebackType

from celery import current_task

from rankmill.broker import app

_EVERY_S = 2.0


class ProgressEvents:
    """Sends progress during a `with` block; Flower shows the block's state for the task.

    A thread sends: sending waits as long as the broker is away, and a shard must not.
    """

    def __init__(self, state: str, worker: str | None, about: dict[str, str]) -> None:
        self._type = f"task-{state}"
        self._worker = worker
        self._about = about
        self._progress = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="progress", daemon=True)

    @classmethod
    def of_this_task(cls, state: str) -> ProgressEvents:
        """Return those of this thread's Celery task; outside of one they send nothing."""
        if not current_task:
            return cls(state, None, {})
        request = current_task.request
        # Its name too, for a Flower that started after the task was received.
        about = {"uuid": request.id, "name": current_task.name, "kwargs": request.kwargsrepr}
        return cls(state, request.hostname, about)

    def show(self, progress: str) -> None:
        """Show a line as the task's result until it has one."""
        self._progress = progress

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
        # Repeated even if unchanged, for a Flower that has just started.
        while not self._stop.wait(_EVERY_S):
            try:
                with app().events.default_dispatcher(hostname=self._worker) as dispatcher:
                    dispatcher.send(self._type, **self._about, result=self._progress)
            except Exception:  # any library's: progress is only for display
                continue
