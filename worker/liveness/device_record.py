"""What a worker's device has failed with since it last did a shard, and when that is enough.

    FOLDER/PID.device   of the children of a main process, one after the other

A process whose device has failed ends: its CUDA context is lost. The next one lets the device prove
itself before it takes a shard. A device that fails then, or with three shards and none done in
between, is given up: its worker takes no more work and ends with EXIT_DEVICE_LOST.
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

_MOST_SHARDS = 3


@dataclass(frozen=True)
class _Failures:
    shards: tuple[str, ...] = ()
    lost: str | None = None


class DeviceRecord:
    """Of one worker's device; kept on this machine's disk, which outlives a process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def of_worker(cls, pid: int) -> DeviceRecord:
        try:
            return cls(device_path(own_folder(settings()), pid))
        except RankmillError as error:
            log.warning("failures of the device cannot be counted", error=str(error))
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
        """Raise DeviceFault where the device is given up."""
        if self.lost is not None:
            raise DeviceFault(f"it is given up: {self.lost}")

    def failed(self, shard: str, reason: str, *, at_its_proof: bool) -> None:
        before = self._read()
        after = replace(before, shards=tuple(dict.fromkeys([*before.shards, shard])))
        if (at_its_proof and before.shards) or len(after.shards) >= _MOST_SHARDS:
            after = replace(after, lost=reason)
            log.error("the device has failed again and is given up", reason=reason)
        if self._path is not None:
            try:
                self._path.write_text(json.dumps(asdict(after)))
            except OSError as error:
                log.warning("a failure of the device could not be counted", error=str(error))

    def worked(self) -> None:
        """It has done a shard."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> _Failures:
        try:
            found = json.loads(self._path.read_text()) if self._path is not None else {}
        except (OSError, ValueError):
            return _Failures()
        return _Failures(tuple(found.get("shards", ())), found.get("lost"))


def device_record() -> DeviceRecord:
    """That of this process's worker, whose child it is."""
    return DeviceRecord.of_worker(os.getppid())
