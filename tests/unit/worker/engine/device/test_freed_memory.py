"""Freed activations stay with the process, so that the next batch touches no new pages."""

from __future__ import annotations

import resource

import torch

from worker.engine.device.memory import keep_freed_memory

_BYTES = 3 * 2**24


def test_the_next_activations_take_the_pages_of_freed_ones() -> None:
    keep_freed_memory()
    _fill_and_free(3)
    before = _new_pages()
    _fill_and_free(2)
    assert _new_pages() - before < _BYTES // resource.getpagesize()


def _fill_and_free(times: int) -> None:
    for _ in range(times):
        torch.ones(_BYTES, dtype=torch.uint8)


def _new_pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
