"""Work done a step ahead in a background thread, so that whoever needs it finds it ready."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from typing import TypeVar

_Item = TypeVar("_Item")

THREAD = "reading-ahead"

# How often a waiting thread looks whether the other side has gone.
_POLL_S = 0.1


class _Done:
    """Follows the last item; carries the error that ended the work, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[_Item]) -> Generator[_Item, None, None]:
    """The same items, up to two of them made before they are asked for.

    Errors of `items` are raised here, after what came before them. The thread has ended when this
    generator is exhausted, closed or has raised.
    """
    ready: Queue[_Item | _Done] = Queue(maxsize=1)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, stop), name=THREAD, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Done):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        _drain(ready)
        thread.join()


def _fill(items: Iterable[_Item], ready: Queue[_Item | _Done], stop: threading.Event) -> None:
    done = _Done()
    try:
        for item in items:
            if not _put(ready, item, stop):
                return
    except BaseException as error:
        done = _Done(error)
    _put(ready, done, stop)


def _put(ready: Queue[_Item | _Done], item: _Item | _Done, stop: threading.Event) -> bool:
    """False when the other side has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_S)
        except Full:
            continue
        return True
    return False


def _drain(ready: Queue[_Item | _Done]) -> None:
    try:
        while True:
            ready.get_nowait()
    except Empty:
        return
