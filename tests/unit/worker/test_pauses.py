"""A queue whose work was declined is paused, longer each time, and taken again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worker import pauses as pauses_module
from worker.pauses import Pauses


class Timer:
    """The part of Celery's timer that the test itself plays."""

    def call_repeatedly(self, every_s: float, call: Callable[[], None]) -> None:
        assert every_s <= 1


class Consumer:
    """The part of Celery's consumer that takes queues."""

    def __init__(self) -> None:
        self.taken = {"score", "control"}
        self.timer = Timer()
        self.task_consumer: object | None = object()
        self.cancel_task_queue = self.taken.discard
        self.add_task_queue = self.taken.add


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pauses_module, "time", clock)
    return clock


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def pauses(clock: Clock, consumer: Consumer) -> Pauses:
    pauses = Pauses()
    pauses.attach(consumer)
    return pauses


def seconds_paused(pauses: Pauses, consumer: Consumer, clock: Clock) -> float:
    began = clock.now
    pauses.pause("score", "no mount")
    while "score" not in consumer.taken:
        clock.now += 0.5
        pauses.resume()
    return clock.now - began


def test_each_pause_is_twice_the_last_up_to_a_bound(
    pauses: Pauses, consumer: Consumer, clock: Clock
) -> None:
    assert [seconds_paused(pauses, consumer, clock) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert pauses.reasons() == ["no mount"] and consumer.taken == {"score", "control"}
    clock.now += 400
    assert pauses.reasons() == [] and seconds_paused(pauses, consumer, clock) == 1


def test_other_queues_are_taken_meanwhile(pauses: Pauses, consumer: Consumer) -> None:
    pauses.pause("score", "no mount")
    assert consumer.taken == {"control"} and pauses.paused() == ["score"]


def test_a_pause_lasts_while_the_host_is_useless_or_redis_is_away(
    pauses: Pauses, consumer: Consumer, clock: Clock
) -> None:
    asked: list[bool] = []
    pauses.on_decline = lambda: asked.append(True)
    pauses.pause("score", "no mount")
    pauses.pause("score", "another message that had been taken already")
    assert asked == [True] and pauses.reasons() == ["no mount"]
    clock.now += 2
    pauses.is_held_back = lambda: True
    pauses.resume()
    assert pauses.paused() == ["score"]
    pauses.is_held_back = lambda: False
    consumer.task_consumer = None
    pauses.resume()
    assert pauses.paused() == ["score"]
    consumer.task_consumer = object()
    pauses.resume()
    assert pauses.paused() == [] and "score" in consumer.taken
