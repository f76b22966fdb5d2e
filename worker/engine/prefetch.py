"""Make the items of an iterable ahead, in a background thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

THREAD = "reading-ahead"


def ahead(
    items: Iterable[_Item], size: Callable[[_Item], int] = lambda _: 1, limit: int = 1
) -> Generator[_Item, None, None]:
    """Yield the same items, made before they are requested.

    An error of `items` is raised here, after the items before it. The thread has ended when this
    generator is exhausted, closed or has raised.

    Args:
        items: the iterable; the thread iterates over it.
        size: returns the size of an item.
        limit: total size of the items that wait, where more than one waits. One more is being made.
    """
    shelf: _Shelf[_Item | _Done] = _Shelf(limit)

    def fill() -> None:
        done = _Done()
        try:
            for item in items:
                if not shelf.put(item, size(item)):
                    return
        except BaseException as error:
            done = _Done(error)
        shelf.put(done, 0)

    thread = threading.Thread(target=fill, name=THREAD, daemon=True)
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
    """The end of the items, with the error that ended them if there was one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Shelf(Generic[_Item]):
    """A bounded queue between two threads that either side can close."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[_Item, int]] = deque()
        self._size = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, item: _Item, size: int) -> bool:
        """Wait for room and add the item; return False if the shelf is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or not self._items or self._size + size <= self._limit
            )
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
