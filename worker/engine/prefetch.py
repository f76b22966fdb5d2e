"""Work done ahead in a background thread, so that whoever needs it finds it ready."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

THREAD = "reading-ahead"


def _one(_: object) -> int:
    return 1


def ahead(
    items: Iterable[_Item], size: Callable[[_Item], int] = _one, limit: int = 1
) -> Generator[_Item, None, None]:
    """The same items, made before they are asked for.

    Those that wait are of a total size of `limit` at most, or one alone; one more is in the making.
    Errors of `items` are raised here, after what came before them. The thread has ended when this
    generator is exhausted, closed or has raised.
    """
    shelf: _Shelf[_Item | _Done] = _Shelf(limit)
    thread = threading.Thread(target=_fill, args=(items, size, shelf), name=THREAD, daemon=True)
    thread.start()
    try:
        while not isinstance(item := shelf.take(), _Done):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        shelf.close()
        thread.join()


class _Done:
    """Follows the last item; carries the error that ended the work, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Shelf(Generic[_Item]):
    """Between two threads: one puts things there while there is room, the other takes them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[_Item, int]] = deque()
        self._size = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, item: _Item, size: int) -> bool:
        """Wait for room; False when the other side has gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room(size))
            if self._is_closed:
                return False
            self._items.append((item, size))
            self._size += size
            self._changed.notify_all()
            return True

    def take(self) -> _Item:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            item, size = self._items.popleft()
            self._size -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._items or self._size + size <= self._limit


def _fill(
    items: Iterable[_Item], size: Callable[[_Item], int], shelf: _Shelf[_Item | _Done]
) -> None:
    done = _Done()
    try:
        for item in items:
            if not shelf.put(item, size(item)):
                return
    except BaseException as error:
        done = _Done(error)
    shelf.put(done, 0)
