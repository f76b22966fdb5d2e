"""Send the replies of remote control straight to the queue of the process that asked.

Celery looks that queue up in bindings, which Flower may write. So a forged binding could make
workers write their replies to any key.
"""

from __future__ import annotations

from typing import no_type_check

from celery.app.control import Control
from kombu.pidbox import Mailbox


class DirectMailbox(Mailbox):
    """Celery's mailbox, which sends a reply to its queue by name."""

    @no_type_check  # kombu has no types
    def _publish_reply(self, reply, exchange, routing_key, ticket, **options) -> None:
        queue = f"{routing_key}.{self.reply_exchange.name}"
        super()._publish_reply(reply, "", queue, ticket, **options)


class DirectControl(Control):
    """Celery's remote control with the mailbox above."""

    Mailbox = DirectMailbox
