"""Count the failures of a worker's device since its last good shard, and give it up in time.

    FOLDER/PID.device   of the children of a main process, one after the other

A process whose device has failed ends: its CUDA context is lost. The next one lets the device prove
itself before it takes a shard. A device is given up that fails then, or with three shards and none
done in between. Its worker takes no more work and ends with EXIT_DEVICE_LOST.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rankmill.errors import DeviceFault, RankmillError
from rankmill.logs import get_logger
from rankmill.settings import settings
from worker.liveness.files import device_path, own_folder

log = get_logger(__name__)

_MAX_FAILED_SHARDS = 3


@dataclass(frozen=True)
class _Failures:
    shards: tuple[str, ...] = ()
    lost: str | None = None


class DeviceRecord:
    """The failures of one worker's device, in a file on local disk, which outlives a process."""

    def __init__(self, path: Path | None) -> None:
        """Count in a file, or nowhere for None."""
        self._path = path

    @classmethod
    def of_worker(cls, pid: int) -> DeviceRecord:
        """Return the record of a worker by its main process; it counts nowhere without a folder."""
        try:
            return cls(device_path(own_folder(settings()), pid))
        except RankmillError as error:
            log.warning("device failures are not counted", error=str(error))
            return cls(None)

    @property
    def has_failed(self) -> bool:
        """Whether the device has failed and done no shard since."""
        return bool(self._read().shards)

    @property
    def lost(self) -> str | None:
        """Why the device is given up; None as long as it is not."""
        return self._read().lost

    def check(self) -> None:
        """Check that the device is not given up.

        Raises:
            DeviceFault: it is.
        """
        if self.lost is not None:
            raise DeviceFault(f"it is given up: {self.lost}")

    def failed(self, shard: str, reason: str, *, at_its_proof: bool) -> None:
        """Count a failure with a shard, and give the device up if it was one too many."""
        before = self._read()
        after = replace(before, shards=tuple(dict.fromkeys([*before.shards, shard])))
        if (at_its_proof and before.shards) or len(after.shards) >= _MAX_FAILED_SHARDS:
            after = replace(after, lost=reason)
            log.error("device has failed again and is given up", reason=reason)
        if self._path is not None:
            try:
                self._path.write_text(json.dumps(asdict(after)))
            except OSError as error:
                log.warning("device failure not counted", error=str(error))

    def worked(self) -> None:
        """Forget all failures: the device has done a shard."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> _Failures:
        try:
            values = json.loads(self._path.read_text()) if self._path is not None else {}
        except (OSError, ValueError):
            return _Failures()
        return _Failures(tuple(values.get("shards", ())), values.get("lost"))


def device_record() -> DeviceRecord:
    """Return the record of this process's worker, whose child it is."""
    return DeviceRecord.of_worker(os.getppid())
