"""What is made ahead waits in bounded memory, and nobody is left waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from worker.engine.prefetch import THREAD, ahead


class _Counted:
    """Items of size 3; notes how many were made beyond those that were asked for."""

    def __init__(self, n_items: int) -> None:
        self.asked = self.made = self.most_ahead = 0
        self._n_items = n_items

    def __iter__(self) -> Iterator[int]:
        for item in range(self._n_items):
            self.made += 1
            self.most_ahead = max(self.most_ahead, self.made - self.asked)
            yield item


@pytest.mark.parametrize(("limit", "n_ahead"), [(1, 2), (3, 2), (5, 2), (6, 3), (7, 3)])
def test_as_many_wait_as_fit_or_one_and_one_is_in_the_making(limit: int, n_ahead: int) -> None:
    items = _Counted(40)
    made = ahead(items, lambda _: 3, limit)
    found = []
    for n in range(40):
        items.asked = n + 1
        found.append(next(made))
        if n < 30:
            _wait_for(lambda: items.made == items.asked + n_ahead)
    assert found == list(range(40)) and list(made) == []
    assert items.most_ahead == n_ahead


def test_an_error_comes_after_what_was_made_before_it_and_the_thread_ends() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("no more")

    made = ahead(items(), limit=10)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(made)
    assert not _threads()


def test_whoever_stops_asking_ends_the_thread() -> None:
    items = _Counted(1000)
    made = ahead(items, limit=5)
    next(made)
    made.close()
    assert not _threads() and items.made < 1000


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def _wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)
