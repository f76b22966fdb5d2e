"""Only workers put the messages of a dead worker back into their queue.

Flower would do it too. It would need the rights to write to queues and to run a script.
"""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel, QoS


class ReadingQoS(QoS):
    """The book of unacknowledged messages of a process that takes no work."""

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Leave the messages of others alone."""


def leave_alone() -> None:
    """Leave the messages of others alone in this process, until it proves to be a worker."""
    Channel.QoS = ReadingQoS


def restore(**_: Any) -> None:
    """Put back the messages of dead workers (signal `celeryd_init`)."""
    Channel.QoS = QoS
