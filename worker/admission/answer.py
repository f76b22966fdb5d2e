"""Answers to questions go to the queue of the one who asks, whatever is bound to their exchange.

Flower may ask, and also write the bindings by which Celery looks that queue up. So a binding could
have workers write their answers to any key.
"""

from __future__ import annotations

from typing import no_type_check

from celery.app.control import Control
from kombu.pidbox import Mailbox


class DirectMailbox(Mailbox):
    """Celery's mailbox, which sends an answer to its queue by name."""

    @no_type_check  # kombu has no types
    def _publish_reply(self, reply, exchange, routing_key, ticket, **options) -> None:
        queue = f"{routing_key}.{self.reply_exchange.name}"
        super()._publish_reply(reply, "", queue, ticket, **options)


class DirectControl(Control):
    """Celery's remote control with that mailbox."""

    Mailbox = DirectMailbox
