"""Every error that Rankmill raises on purpose.

    RankmillError                what is wrong, where, what to do: one line
    ├── InputError               bad use or bad input (exit 2)
    │   ├── InputMissing         a file of the input is not there
    │   ├── ModelUnavailable     the model cannot be found, fetched or trusted
    │   │   └── ModelNotAllowed  RANKMILL_ALLOWED_MODELS does not list it
    │   └── OutputTaken          the output holds something else already
    ├── HostUnfit                this host cannot do the work; another one may
    │   └── ReleaseTooOld        a newer release wrote what this one must not read (exit 2)
    ├── Declined                 the work goes back to its queue, for another host
    ├── PutBehind                the work goes back to its queue, since others come first
    ├── JobFailed                the job ended without success (exit 1, or its reason's)
    ├── GateFailed               a measured value is beyond its bound (exit 1)
    ├── JobUnknown               there is no such job (exit 2)
    ├── ClaimLost                another worker may have this work now; publish nothing
    ├── EntryBroken              an entry in Redis has a wrong type or value (exit 2)
    ├── StorageRefused           disk full, read-only, access denied (exit 2)
    │   ├── NotAllowed           a place outside of RANKMILL_ALLOWED_PREFIXES
    │   └── NoConditionalPuts    a store in which two writers of one place both succeed
    ├── WebhookRefused           the webhook will never take this event
    └── TransientError           may pass by itself, so that it is retried
        ├── StorageUnavailable   timeout, reset, throttling
        ├── BrokerUnavailable    Redis does not answer, or cannot work now
        │   └── CommandRejected  Redis says that a command is wrong; waiting does not help
        ├── OutputNotReady       an earlier result is being removed from the output
        ├── MemoryShort          an allocation failed; the rows are not the reason
        ├── DeviceFull           the GPU has no room now; the rows are not the reason
        ├── DeviceFault          the GPU failed and its process ends; the rows are not the reason
        └── WebhookUnavailable   the webhook does not take an event now

`transient` alone decides whether a task is retried. `exit_code` is that of the command line.
`blame` alone decides what a worker does after a permanent error: it fails the job if the job is to
blame. It declines the work if the host or its settings are, so that another worker takes it.
`quotes_input` means that the line may hold text of the input's rows; it is then shown only to those
who may read the input.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Literal

from rankmill.shown import error_line

Blame = Literal["job", "host", "settings"]


class RankmillError(Exception):
    """One line for the user: what is wrong, where, and what to do."""

    transient: ClassVar[bool] = False
    blame: ClassVar[Blame] = "job"
    exit_code: int = 1
    quotes_input: ClassVar[bool] = True

    def __init__(self, message: str = "") -> None:
        super().__init__(error_line(message))


def unexpected(error: Exception) -> RankmillError:
    """Return an unexpected error as one line: a bug, a memory shortage or this host's disk."""
    first_line = str(error).strip().partition("\n")[0]
    if is_memory_shortage(error):
        return MemoryShort(first_line)
    if getattr(error, "errno", None) in _DISK_ERRORS:  # where rows wait in a scratch folder
        return HostUnfit(f"{first_line}; make room, or name another folder with RANKMILL_SCRATCH")
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


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def is_memory_shortage(error: BaseException) -> bool:
    """Return whether an allocation of the process failed, which says nothing about its input."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    message = str(error).lower()
    return any(shortage in message for shortage in _SHORTAGES)


class InputError(RankmillError):
    """Bad use or bad input.

    Found before a job starts, nothing was written; found in its rows, parts of other shards remain.
    """

    exit_code = 2


class InputMissing(InputError):
    """A file of the input is not there, or this host does not see it."""

    blame: ClassVar[Blame] = "host"
    quotes_input = False


class ModelUnavailable(InputError):
    """The model cannot be found, fetched or trusted."""

    blame: ClassVar[Blame] = "host"
    quotes_input = False


class ModelNotAllowed(ModelUnavailable):
    """The setting RANKMILL_ALLOWED_MODELS does not list the model."""

    blame: ClassVar[Blame] = "settings"


class OutputTaken(InputError):
    """The output holds something else already."""

    quotes_input = False


class HostUnfit(RankmillError):
    """This host cannot do the work; another one may."""

    blame: ClassVar[Blame] = "host"
    quotes_input = False


class ReleaseTooOld(HostUnfit):
    """A newer release wrote what this one must not read."""

    # During a rolling upgrade many hosts are too old, and those that are not do the work.
    blame: ClassVar[Blame] = "settings"
    exit_code = 2


class Declined(RankmillError):
    """The work goes back to its queue, for another host."""

    quotes_input = False


class PutBehind(RankmillError):
    """The work goes back to its queue, since others come first."""

    quotes_input = False


class JobFailed(RankmillError):
    """The job ended without success."""

    quotes_input = False

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GateFailed(RankmillError):
    """A measured value is beyond its bound."""


class JobUnknown(RankmillError):
    """There is no such job."""

    exit_code = 2


class ClaimLost(RankmillError):
    """Another worker may have this work now; publish nothing."""


class EntryBroken(RankmillError):
    """An entry in Redis has a wrong type or value; other entries are not affected."""

    exit_code = 2
    quotes_input = False


class StorageRefused(RankmillError):
    """The disk is full or read-only, or access is denied."""

    blame: ClassVar[Blame] = "host"
    exit_code = 2
    quotes_input = False


class WebhookRefused(RankmillError):
    """The webhook will never take this event."""

    quotes_input = False


class NotAllowed(StorageRefused):
    """A place is outside of RANKMILL_ALLOWED_PREFIXES."""

    blame: ClassVar[Blame] = "settings"


class NoConditionalPuts(StorageRefused):
    """A store in which two writers of one place both succeed."""

    blame: ClassVar[Blame] = "job"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place}: the store does not know If-None-Match, so that two workers could commit one "
            "shard; use one with conditional puts, as AWS S3 has them"
        )


class TransientError(RankmillError):
    """An error that may pass by itself, so that a retry may help."""

    transient = True
    quotes_input = False


class StorageUnavailable(TransientError):
    """Storage timed out, reset the connection or throttled."""


class BrokerUnavailable(TransientError):
    """Redis does not answer, or cannot work now."""


class CommandRejected(BrokerUnavailable):
    """Redis says that a command is wrong; waiting does not help."""


class OutputNotReady(TransientError):
    """An earlier result is being removed from the output."""


class MemoryShort(TransientError):
    """An allocation failed; the rows are not the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"out of memory: {reason or 'an allocation failed'}; give the process more memory, or "
            "lower RANKMILL_WINDOW_PAIRS"
        )


class DeviceFull(TransientError):
    """The GPU has no room now; the rows are not the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the device's memory is full, by another process it seems: {reason}")


class DeviceFault(TransientError):
    """The GPU failed and its process ends; the rows are not the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the device failed: {reason}")


class WebhookUnavailable(TransientError):
    """The webhook does not take an event now."""
