"""The Celery app, `tasks.celery`, and its task shells."""
