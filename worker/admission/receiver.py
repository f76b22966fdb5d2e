"""Run Celery's consumer on a channel that checks all that it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankmill.logs import get_logger
from worker.admission.remote_control import forget_other_commands
from worker.admission.transport import check_all, log_refused
from worker.consumer import WaitingConsumer

log = get_logger(__name__)

Receive = Callable[[Any], None]


class CheckingConsumer(WaitingConsumer):
    """Celery's consumer; no message ends it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        check_all()
        forget_other_commands()
        super().__init__(*arguments, **options)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Receive:
        """Return Celery's handler; an error that no check has foreseen rejects the message."""
        handle = super().create_task_handler(*arguments, **options)
        # kombu counts KeyError among the errors of a lost connection.
        connection_errors = tuple(each for each in self.connection_errors if each is not KeyError)

        def receive(message: Any) -> None:
            try:
                handle(message)
            except connection_errors:
                raise
            except Exception as error:
                self.on_invalid_task(None, message, error)

        return receive

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Log and reject a message."""
        log_refused(exc)
        message.reject_log_error(log, self.connection_errors)
