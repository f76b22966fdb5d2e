"""Work done one step ahead in a background thread, so that the device finds it ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from queue import Empty, Full, Queue
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

# How often a waiting thread looks whether the other side has gone.
_POLL_S = 0.1


class _Done:
    """Follows the last result; carries the error that ended the work, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def map_ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], *, depth: int = 1
) -> Generator[_Out, None, None]:
    """`map(function, items)`, reading and computing up to `depth` + 1 results ahead.

    Errors of `function` or `items` are raised here, after the results before them. The thread
    has ended when this generator is exhausted, closed or has raised.
    """
    ready: Queue[_Out | _Done] = Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(
        target=_fill, args=(function, items, ready, stop), name="engine-prefetch", daemon=True
    )
    thread.start()
    try:
        while not isinstance(result := ready.get(), _Done):
            yield result
        if result.error is not None:
            raise result.error
    finally:
        stop.set()
        _drain(ready)
        thread.join()


def _fill(
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    ready: Queue[_Out | _Done],
    stop: threading.Event,
) -> None:
    done = _Done()
    try:
        for item in items:
            if stop.is_set() or not _put(ready, function(item), stop):
                return
    except BaseException as error:
        done = _Done(error)
    _put(ready, done, stop)


def _put(ready: Queue[_Out | _Done], result: _Out | _Done, stop: threading.Event) -> bool:
    """False when the other side has gone."""
    while not stop.is_set():
        try:
            ready.put(result, timeout=_POLL_S)
        except Full:
            continue
        return True
    return False


def _drain(ready: Queue[_Out | _Done]) -> None:
    try:
        while True:
            ready.get_nowait()
    except Empty:
        return
