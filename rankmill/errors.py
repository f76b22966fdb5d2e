"""Every error that Rankmill raises on purpose.

    RankmillError                what went wrong, where, what to do: one line
    ├── InputError               bad use or bad input; nothing was written (exit 2)
    │   ├── ModelUnavailable     the model cannot be found, fetched or trusted
    │   └── OutputTaken          the output holds something else already
    ├── JobFailed                the job ended without success (exit 1, or its reason's)
    ├── GateFailed               what was measured is beyond the bound that was set (exit 1)
    ├── JobUnknown               nothing is known of that job (exit 2)
    ├── ClaimLost                another worker may have this shard now; publish nothing
    ├── StorageRefused           disk full, read-only, access denied (exit 2)
    │   ├── NotAllowed           a place outside of RANKMILL_ALLOWED_PREFIXES
    │   └── NoConditionalPuts    a store where two writers of one place both win
    ├── WebhookRefused           the webhook will never take this event
    └── TransientError           may pass by itself, so it is tried again
        ├── StorageUnavailable   time-out, reset, throttling
        ├── BrokerUnavailable    Redis does not answer
        ├── OutputNotReady       an earlier result is being removed from the output
        ├── MemoryShort          an allocation failed; nothing is wrong with the rows
        ├── DeviceFull           the GPU has no room for now; nothing is wrong with the rows
        ├── DeviceFault          the GPU has failed; its process ends, and no row is to blame
        └── WebhookUnavailable   the webhook does not take an event now

`transient` alone decides whether a task is retried; `exit_code` what the command line returns;
`quotes_input` whether the line may hold text of the input's rows, which then goes nowhere but to
who may read them.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from rankmill.shown import error_line


class RankmillError(Exception):
    """One line for the user: what was wrong, where, and what to do."""

    transient: ClassVar[bool] = False
    exit_code: int = 1
    quotes_input: ClassVar[bool] = True

    def __init__(self, message: str = "") -> None:
        super().__init__(error_line(message))


def unexpected(error: Exception) -> RankmillError:
    """An error that nobody foresaw, in one line: a bug, or a shortage of memory, which may pass."""
    first_line = str(error).strip().partition("\n")[0]
    if is_memory_shortage(error):
        return MemoryShort(first_line)
    return RankmillError(f"unexpected {type(error).__name__}: {first_line}")


# Libraries raise a failed allocation as an error of their own: Arrow's codecs as an OSError ("ZSTD
# decompression failed: Allocation error : not enough memory"), DuckDB as an OutOfMemoryException,
# torch and others as a RuntimeError.
_SHORTAGES = (
    "std::bad_alloc",
    "malloc of size",
    "realloc of size",
    "allocation error",
    "allocation failure",
    "failed to allocate",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad allocation",
    "can't start new thread",
)


def is_memory_shortage(error: BaseException) -> bool:
    """Return whether an allocation of the process failed, which says nothing about its input."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    message = str(error).lower()
    return any(shortage in message for shortage in _SHORTAGES)


class InputError(RankmillError):
    exit_code = 2


class ModelUnavailable(InputError):
    quotes_input = False


class OutputTaken(InputError):
    quotes_input = False


class JobFailed(RankmillError):
    quotes_input = False

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GateFailed(RankmillError):
    pass


class JobUnknown(RankmillError):
    exit_code = 2


class ClaimLost(RankmillError):
    pass


class StorageRefused(RankmillError):
    exit_code = 2
    quotes_input = False


class WebhookRefused(RankmillError):
    quotes_input = False


class NotAllowed(StorageRefused):
    pass


class NoConditionalPuts(StorageRefused):
    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place}: the store does not know If-None-Match, so that two workers could commit one "
            "shard; use one with conditional puts, as AWS S3 has them"
        )


class TransientError(RankmillError):
    transient = True
    quotes_input = False


class StorageUnavailable(TransientError):
    pass


class BrokerUnavailable(TransientError):
    pass


class OutputNotReady(TransientError):
    pass


class MemoryShort(TransientError):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"out of memory: {reason or 'an allocation failed'}; give the process more memory, or "
            "lower RANKMILL_WINDOW_PAIRS"
        )


class DeviceFull(TransientError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the device's memory is full, by another process it seems: {reason}")


class DeviceFault(TransientError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the device failed: {reason}")


class WebhookUnavailable(TransientError):
    pass
