"""Connect Celery's signals to a worker's heartbeat, metrics and choice of device."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import psutil
from billiard import semaphore_tracker
from celery import current_app
from celery.signals import (
    heartbeat_sent,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state as worker_state

from rankmill.broker import SCORE_SHARD, score_queues
from rankmill.devices.choice import EXIT_DEVICE_LOST, Choice, choose
from rankmill.devices.cores import bind_near
from rankmill.errors import RankmillError
from rankmill.ledger import client
from rankmill.ledger.server import check_at_start
from rankmill.logs import get_logger
from rankmill.settings import settings, unknown_variables
from rankmill.tables.pandas_on_demand import load_pandas_on_demand
from worker.fitness import fitness
from worker.liveness.card_watch import CardWatch
from worker.liveness.heartbeat import task_heartbeat, worker_heartbeat
from worker.metrics.counters import meters
from worker.metrics.server import serve
from worker.pauses import pauses

log = get_logger(__name__)

# Celery's default is 2 s, at which 500 workers would send 250 events a second.
_EVENT_S = 10.0

# Seconds that a worker which was asked to stop waits for a Redis that is away.
_AWAY_S = 20.0

# What loading a model imports, which takes seconds.
_ENGINE = ("worker.delivery", "transformers.models.auto")

# Who sets one of these has chosen (torch's notes on CUDA, "Memory management").
_ALLOCATORS = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}

# The heartbeat of the one task that a child runs at a time.
_at_work = ExitStack()


def connect() -> None:
    """Have Celery call the functions of this module."""
    worker_init.connect(_begin)
    worker_process_init.connect(_begin_child)
    worker_ready.connect(pauses().attach)
    worker_ready.connect(_check_host)
    heartbeat_sent.connect(_turn)
    worker_shutting_down.connect(_stop)
    worker_shutdown.connect(_end)
    task_prerun.connect(_start_task)
    task_postrun.connect(_end_task)


def _begin(sender: Any, **_: Any) -> None:
    """Start the main process's heartbeat and metrics, before it has a child.

    Celery goes on after any error here but SystemExit.
    """
    try:
        check_at_start(client.connect(settings()))
    except RankmillError as error:
        log.error("this Redis cannot be used", error=str(error))
        sys.exit(error.exit_code)
    for line in unknown_variables():
        log.warning("unknown variable", reason=line)
    if sender.options.get("heartbeat_interval") is None:  # by its command line
        sender.options["heartbeat_interval"] = min(_EVENT_S, settings().stall_s / 4)
    watch = _use_card(_checked_device()) if _scores(sender.app) else None
    _start_semaphore_tracker()
    worker_heartbeat().start(str(sender.hostname), settings(), _give_device_up)
    serve(worker_heartbeat(), settings(), watch)


def _start_semaphore_tracker() -> None:
    """Start billiard's process that tracks semaphores, such that it outlives the worker.

    A terminal sends SIGQUIT to all processes. Without its tracker, a worker ends in a traceback.
    """
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # the tracker inherits it
    semaphore_tracker.ensure_running()
    signal.signal(signal.SIGQUIT, before)


def _checked_device() -> Choice:
    """Return the device to score on, and end the worker if it cannot be used."""
    try:
        chosen = choose(settings().device, is_tried=False)
    except RankmillError as error:
        log.error("no device to score on", error=str(error))
        sys.exit(error.exit_code)
    if chosen.is_surprising:
        log.warning("device differs from the one that seems to be meant", reason=chosen.reason)
    elif settings().device_reason:
        log.info("device chosen", reason=settings().device_reason)
    return chosen


def _use_card(chosen: Choice) -> CardWatch | None:
    """Prepare this process and its children for the GPU, and watch it; None on a CPU."""
    if not chosen.gpus:
        return None
    if not _ALLOCATORS & os.environ.keys():
        # Batches of many sizes leave holes in segments of fixed size. torch reads this once.
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    card = chosen.cards[0]
    if card is None:
        log.info("GPU not described by NVML", about=chosen.about)
        return None
    if settings().numa and card.pci_bus_id is not None:
        n_cores = bind_near(card.pci_bus_id)
        if n_cores is not None:
            log.info("bound to the cores next to the GPU", cores=n_cores, gpu=card.uuid)
    watch = CardWatch(card.uuid)
    watch.start()
    worker_heartbeat().card = lambda: watch.text
    log.info("GPU in use", gpu=card.uuid, card=card.text, about=chosen.about)
    return watch


def _check_host(sender: Any, **_: Any) -> None:
    """Start the checks of what the worker needs from its host."""
    fitness().start(scores=_scores(sender.app))
    worker_heartbeat().reasons = fitness().reasons


def _scores(app: Any) -> bool:
    return not set(score_queues()).isdisjoint(app.amqp.queues.consume_from)


def _give_device_up() -> None:
    """Have the main process take no more work, and end when its child has."""
    log.error("device has failed", reason=worker_heartbeat().record.device_lost)
    worker_state.should_stop = EXIT_DEVICE_LOST


def _begin_child(**_: Any) -> None:
    """Open a child's metrics, so that they are served at 0 before its first task.

    A child that scores imports the engine now, while the main process connects to Redis.
    """
    meters()
    load_pandas_on_demand()
    if not _scores(current_app):
        return
    # Modules are not garbage: looking for some took a quarter of the time.
    gc.disable()
    try:
        for name in _ENGINE:
            import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _turn(**_: Any) -> None:
    """Note a turn of the main process's message loop, one for each heartbeat event."""
    worker_heartbeat().loop_turned()


def _stop(**_: Any) -> None:
    worker_heartbeat().loop_stopping()
    threading.Thread(target=_end_without_redis, name="stopping", daemon=True).start()


def _end_without_redis() -> None:
    """End a stopping worker for which Redis stays away.

    It waits for its task, and the task waits for Redis. The private Redis of a killed
    `rankmill run` does not come back.
    """
    connection = client.connect(settings())
    answered = time.monotonic()
    while time.monotonic() - answered < _AWAY_S:
        try:
            with client.broker_errors():
                connection.ping()
            answered = time.monotonic()
        except RankmillError:
            pass
        time.sleep(1)
    log.warning("worker ends without Redis", reason="its tasks are sent again")
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def _end(**_: Any) -> None:
    worker_heartbeat().stop()


def _start_task(sender: Any, **_: Any) -> None:
    """Start a child's heartbeat, unless the task reports progress itself as scoring does.

    Preparing, for one, may be a single long statement.
    """
    if sender.name != SCORE_SHARD:
        _at_work.enter_context(task_heartbeat().beating(sender.name))


def _end_task(**_: Any) -> None:
    _at_work.close()
