"""Items made ahead come in order, wait in bounded memory, and no thread is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from worker.engine.prefetch import THREAD, MadeAhead, ahead


class _Counted:
    """Items of size 3 that count how many were made beyond the requested ones."""

    def __init__(self, n_items: int) -> None:
        self.n_requested = self.n_made = self.most_ahead = 0
        self._n_items = n_items

    def __iter__(self) -> Iterator[int]:
        for item in range(self._n_items):
            self.n_made += 1
            self.most_ahead = max(self.most_ahead, self.n_made - self.n_requested)
            yield item


@pytest.mark.parametrize(("limit", "n_ahead"), [(1, 2), (3, 2), (5, 2), (6, 3), (7, 3)])
def test_items_within_the_limit_wait_and_one_more_is_being_made(limit: int, n_ahead: int) -> None:
    items = _Counted(40)
    made = ahead(items, lambda _: 3, limit)
    items_made = []
    for n in range(40):
        items.n_requested = n + 1
        items_made.append(next(made))
        if n < 30:
            _wait_for(lambda: items.n_made == items.n_requested + n_ahead)
    assert items_made == list(range(40)) and list(made) == []
    assert items.most_ahead == n_ahead


def test_an_error_comes_after_the_items_before_it_and_the_thread_ends() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no more")

    made = ahead(items(), limit=10)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(made)
    assert not _threads()


def test_closing_the_generator_ends_the_thread() -> None:
    items = _Counted(1000)
    made = ahead(items, limit=5)
    next(made)
    made.close()
    assert not _threads() and items.n_made < 1000


def test_items_made_in_several_threads_come_in_order_and_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)

    def make(item: int) -> int:
        both.wait()  # passes only where two items are made at once
        time.sleep(0.002 * (item % 2 == 0))  # the later one is finished first
        return item * item

    made = MadeAhead(make, range(20), n_threads=2)
    assert list(made) == [item * item for item in range(20)]
    assert list(made) == []
    made.close()
    assert not _threads()


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_one_item_more_than_there_are_threads_is_made_or_waits(n_threads: int) -> None:
    items = _Counted(40)
    made = MadeAhead(lambda item: item, items, n_threads)
    for n in range(30):
        items.n_requested = n + 1
        assert next(made) == n
        _wait_for(lambda: items.n_made == items.n_requested + n_threads + 1)
    assert made.is_ready()
    made.close()
    assert items.most_ahead == n_threads + 1 and not _threads()


def test_an_error_comes_in_the_place_of_its_item_whichever_thread_is_faster() -> None:
    failed = threading.Event()

    def make(item: int) -> int:
        if item == 3:
            failed.set()
            raise ValueError("item 3")
        if item == 2:
            assert failed.wait(30)
        return item

    made = MadeAhead(make, range(10), n_threads=2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="item 3"):
            next(made)
    made.close()
    assert not _threads()


def test_an_error_of_the_source_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    made = MadeAhead(lambda item: item, items(), n_threads=2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no more"):
        next(made)
    made.close()
    assert not _threads()


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def _wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)
