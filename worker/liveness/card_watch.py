"""Watch a worker's GPU by NVML, in a thread of its own, since NVML may never answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rankmill.devices.nvml import Answer, Card, read_card
from rankmill.logs import get_logger

log = get_logger(__name__)

_EVERY_S = 10.0
_STALE_S = 60.0


class CardWatch:
    """The latest answer of NVML about one GPU or MIG slice; asking for it never blocks."""

    def __init__(
        self,
        uuid: str,
        *,
        read: Callable[[str], Answer] = read_card,
        every_s: float = _EVERY_S,
        stale_s: float = _STALE_S,
    ) -> None:
        """Watch nothing before `start`.

        Args:
            uuid: of the GPU or the slice.
            read: returns NVML's answer.
            every_s: seconds between two questions.
            stale_s: age from which an answer counts as none.
        """
        self._uuid, self._read = uuid, read
        self._every_s, self._stale_s = every_s, stale_s
        self._answer = Answer()
        self._answered_at = time.monotonic()

    def start(self) -> None:
        """Ask from now on."""
        threading.Thread(target=self._ask_for_ever, name="card", daemon=True).start()

    @property
    def card(self) -> Card | None:
        """The GPU; None while NVML fails or is silent."""
        is_fresh = time.monotonic() - self._answered_at < self._stale_s
        if not is_fresh or not self._answer.cards or self._answer.cards[0].failure is not None:
            return None
        return self._answer.cards[0]

    @property
    def answer(self) -> Answer:
        """The latest answer, however old."""
        return self._answer

    @property
    def text(self) -> str:
        """The GPU, its driver and CUDA in a few words, or why they are not known."""
        silent_s = time.monotonic() - self._answered_at
        if silent_s >= self._stale_s:
            return f"NVML has not answered for {silent_s:.0f} s"
        if self._answer.failure is not None:
            return self._answer.failure
        about = [card.text for card in self._answer.cards[:1]]
        about += [f"driver {self._answer.driver}"] if self._answer.driver else []
        about += [f"CUDA {self._answer.cuda}"] if self._answer.cuda else []
        return ", ".join(about)

    def _ask_for_ever(self) -> None:
        while True:
            try:
                self._answer = self._read(self._uuid)
            except Exception as error:  # a bug here must not end the watch
                log.exception("GPU not watched")
                self._answer = Answer(failure=f"{type(error).__name__}: {error}")
            self._answered_at = time.monotonic()
            time.sleep(self._every_s)
