"""Check what a worker needs from its host: folders and buckets, models, scratch space.

The check runs at the worker's start, after each decline and then every minute until all is well. It
has its own thread in the main process, since a mount that hangs would stop anything else.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rankmill import storage
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.host import worker_id
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.settings import Settings, settings
from worker.pauses import Pauses, pauses

log = get_logger(__name__)

_EVERY_S = 60.0
_ANSWERS_IN_S = 30.0
_SCRATCH_BYTES = 2**20


def check(settings: Settings, *, scores: bool) -> tuple[list[str], bool]:
    """Return what is wrong with this host.

    Args:
        settings: whose prefixes, models and scratch folder are checked.
        scores: whether the worker loads models.

    Returns:
        One line for each fault, and whether the worker can do no work at all because of them.
    """
    prefixes = list(settings.allowed_prefixes or ())
    away = {prefix: error for prefix in prefixes if (error := _unreachable(prefix))}
    places = list(away.values())
    if prefixes and not places and not any(map(_is_writable, prefixes)):
        places = [f"none of RANKMILL_ALLOWED_PREFIXES can be written to: {', '.join(prefixes)}"]
    has_no_place = bool(places) and (len(away) == len(prefixes) or not away)
    scratch = list(_scratch(settings))
    named = [each for each in settings.allowed_models or () if not each.endswith("/*")]
    models = list(_models(named)) if scores else []
    has_no_model = bool(named) and len(models) == len(named)
    return [*places, *scratch, *models], bool(scratch) or has_no_place or has_no_model


def _unreachable(prefix: str) -> str | None:
    try:
        if storage.is_local(prefix):
            return None if os.path.isdir(prefix) else f"{prefix} is not there; is it mounted?"
        storage.names(prefix, uuid.uuid4().hex)  # lists nothing, whatever the bucket holds
    except RankmillError as error:
        return str(error)
    return None


def _is_writable(prefix: str) -> bool:
    if storage.is_local(prefix):
        return os.access(prefix, os.W_OK)
    try:
        storage.check_conditional_puts(prefix)
    except RankmillError:
        return False
    return True


def _scratch(settings: Settings) -> Iterator[str]:
    folder = settings.scratch or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_SCRATCH_BYTES))
    except OSError as error:
        yield f"scratch folder {folder}: {error.strerror}; repair it or set RANKMILL_SCRATCH"


def _models(names: list[str]) -> Iterator[str]:
    """Yield what is wrong with models that need no network to be found."""
    for name in names:
        is_here = name.startswith("/") or settings().models is not None
        if not is_null_model(name) and is_here:
            try:
                locate_model(name)
            except RankmillError as error:
                yield str(error)


class Fitness:
    """The outcome of the last check of this worker."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._asked = threading.Event()
        self._began: float | None = None
        self._problems: tuple[str, ...] = ()
        self._is_held_back = False

    def start(self, *, scores: bool) -> None:
        """Check now, after each decline, and each minute while something is wrong."""
        self._pauses.is_held_back = lambda: self._is_held_back
        self._pauses.on_decline = self._asked.set
        target, name = self._check_for_ever, "fitness"
        threading.Thread(target=target, args=(scores,), name=name, daemon=True).start()

    def reasons(self) -> list[str]:
        """Return what this worker cannot do: what the check found, and what it declined lately."""
        began = self._began
        hangs = began is not None and time.monotonic() - began > _ANSWERS_IN_S
        slow = (
            ["a folder or a bucket of RANKMILL_ALLOWED_PREFIXES hangs; check its mount"]
            if hangs
            else []
        )
        return list(dict.fromkeys([*slow, *self._problems, *self._pauses.reasons()]))

    def _check_for_ever(self, scores: bool) -> None:
        while True:
            self._asked.clear()
            try:
                self._check(scores)
            except Exception:  # a bug here must not hide the next fault
                log.exception("check of this host failed")
            self._asked.wait(_EVERY_S if self.reasons() else None)

    def _check(self, scores: bool) -> None:
        self._began = time.monotonic()
        problems, is_useless = check(settings(), scores=scores)
        self._began = None
        for problem in problems:
            if problem not in self._problems:
                log.warning("host unfit", reason=problem)
        if self._problems and not problems:
            log.info("host fit again")
        self._problems = tuple(problems)
        # If no fit worker takes a queue, unfit ones do, so that a job that no host can do ends.
        self._is_held_back = is_useless and has_fit_others(self._pauses.paused())


def has_fit_others(queues: Sequence[str]) -> bool:
    """Return whether another live worker takes each of some queues, and can do all work."""
    try:
        unfit = {worker_id(), *ledger().declines.unfit(ledger().now())}
        return all(ledger().workers.takers(queue) - unfit for queue in queues)
    except BrokerUnavailable:
        return False


@lru_cache(maxsize=1)
def fitness() -> Fitness:
    """Return the fitness of this process, which is a worker's main one."""
    return Fitness(pauses())
