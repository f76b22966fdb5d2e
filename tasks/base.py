"""What all task shells have in common: an error of ours is a line in the log, not a traceback."""

from celery import Task

from rankmill.errors import RankmillError


class Shell(Task):  # type: ignore[misc]  # Celery has no types
    throws = (RankmillError,)
