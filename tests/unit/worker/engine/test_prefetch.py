"""Items made ahead wait in bounded memory, and no thread is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from worker.engine.prefetch import THREAD, ahead


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


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def _wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)
