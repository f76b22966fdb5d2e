"""Let only workers put the messages of a dead worker back into their queues.

kombu does it in every process. Flower would then need rights to write queues and run scripts.
"""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel, QoS


class PassiveQoS(QoS):
    """kombu's record of unacknowledged messages, for a process that takes no work."""

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Put nothing back."""


def disable_restore() -> None:
    """Put no messages back in this process, unless it becomes a worker."""
    Channel.QoS = PassiveQoS


def enable_restore(**_: Any) -> None:
    """Put the messages of dead workers back in this process (signal `celeryd_init`)."""
    Channel.QoS = QoS
