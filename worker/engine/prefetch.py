"""Make the items of an iterable ahead, in background threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

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


class MadeAhead(Generic[_Made]):
    """The results of a function for items, in their order, made several at a time.

    The items are taken one after the other. An error of an item is raised in its place, after
    those before it. The threads have ended when `close` returns.
    """

    def __init__(
        self, make: Callable[[_Item], _Made], items: Iterable[_Item], n_threads: int = 1
    ) -> None:
        """Start the threads.

        Args:
            make: called in several threads at once where `n_threads` is not 1.
            items: at most `n_threads` + 1 of them are being made or wait.
            n_threads: items that are made at the same time.
        """
        source = iter(items)
        self._most = n_threads + 1
        self._made: dict[int, _Made | _Done] = {}
        self._n_begun = self._n_taken = 0
        self._is_over = False
        self._changed = threading.Condition()
        taking = threading.Lock()

        def fill() -> None:
            while True:
                with taking:
                    number = self._begin()
                    if number is None:
                        return
                    try:
                        item = next(source)
                    except BaseException as error:
                        is_end = isinstance(error, StopIteration)
                        return self._put(number, _Done(None if is_end else error))
                try:
                    made = make(item)
                except BaseException as error:
                    return self._put(number, _Done(error))
                self._put(number, made)

        self._threads = [
            threading.Thread(target=fill, name=THREAD, daemon=True) for _ in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> MadeAhead[_Made]:
        return self

    def __next__(self) -> _Made:
        with self._changed:
            self._changed.wait_for(lambda: self._n_taken in self._made)
            made = self._made[self._n_taken]
            if not isinstance(made, _Done):
                del self._made[self._n_taken]
                self._n_taken += 1
                self._changed.notify_all()
                return made
        raise made.error or StopIteration

    def is_ready(self) -> bool:
        """Return whether the next item, its error or the end is there."""
        with self._changed:
            return self._n_taken in self._made

    def close(self) -> None:
        """End the threads, and drop what was made."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._made.clear()

    def _begin(self) -> int | None:
        """Wait for room and return the number of the next item; None if no more are wanted."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or self._n_begun - self._n_taken < self._most
            )
            if self._is_over:
                return None
            self._n_begun += 1
            return self._n_begun - 1

    def _put(self, number: int, made: _Made | _Done) -> None:
        """Put what was made of an item in its place; after the end, nothing more is begun."""
        with self._changed:
            self._made[number] = made
            self._is_over = self._is_over or isinstance(made, _Done)
            self._changed.notify_all()
