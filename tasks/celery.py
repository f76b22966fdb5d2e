"""`celery -A tasks worker|beat|flower`: the app of rankmill.broker with the task shells."""

from celery.signals import task_received, worker_ready

from rankmill import broker
from worker.runtime import remember_job, start_reconciling

app = broker.app()
app.conf.include = ["tasks.jobs"]
worker_ready.connect(start_reconciling)
task_received.connect(remember_job)
