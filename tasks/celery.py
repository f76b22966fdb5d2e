"""`celery -A tasks worker|beat|flower`: the app of rankmill.broker with the task shells."""

from typing import Any

import click
from celery import Celery
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_received,
    worker_process_init,
    worker_ready,
    worker_shutdown,
)

from rankmill import broker, host
from rankmill.errors import RankmillError
from tasks import unacked
from tasks.logs import name_worker, set_up_logs
from worker import signals
from worker.background import forget_beat, leave, remember_job, start_reconciling


def forget_built_in_tasks(sender: Celery, **_: Any) -> None:
    """Remove Celery's own tasks, which would call others with arguments that nothing checks."""
    for name in [name for name in sender.tasks if name.startswith("celery.")]:
        del sender.tasks[name]


try:
    app = broker.app()
except RankmillError as error:
    if click.get_current_context(silent=True) is None:
        raise
    # Celery's command line shows the traceback of any exception.
    click.echo(f"rankmill: {error}", err=True)
    raise SystemExit(error.exit_code) from None
app.conf.include = ["tasks.jobs"]
unacked.disable_restore()
celeryd_init.connect(unacked.enable_restore)
celeryd_init.connect(name_worker)
celeryd_init.connect(host.name_worker)
celeryd_init.connect(forget_beat)
setup_logging.connect(set_up_logs)
worker_process_init.connect(name_worker)
worker_process_init.connect(host.name_worker)
signals.connect()
app.conf.worker_consumer = "worker.admission.receiver:CheckingConsumer"
app.Beat = app.subclass_with_self("tasks.beat:WaitingBeat")
app.control_cls = "worker.admission.replies:DirectControl"
app.task_cls = "tasks.base:Shell"  # by name, since a pool process makes its own app
app.on_after_finalize.connect(forget_built_in_tasks)
worker_ready.connect(start_reconciling)
worker_shutdown.connect(leave)
task_received.connect(remember_job)
