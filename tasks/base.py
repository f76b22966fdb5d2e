"""What all task shells have in common: an error of ours is a line in the log, not a traceback."""

from typing import Any

from celery import Task

from rankmill.errors import RankmillError


class Shell(Task):  # type: ignore[misc]  # Celery has no types
    throws = (RankmillError,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except RankmillError as error:
            # Flower shows the traceback, in which a cause would have its text as it was.
            raise error from None
