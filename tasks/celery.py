"""`celery -A tasks worker|beat|flower`: the app of rankmill.broker with the task shells."""

from celery.signals import worker_ready

from rankmill import broker
from worker.runtime import start_reconciling

app = broker.app()
app.conf.include = ["tasks.jobs"]
worker_ready.connect(start_reconciling)
