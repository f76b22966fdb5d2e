"""The stand-in for a card catches what a card would answer with wrong numbers or an error."""

from __future__ import annotations

import pytest
import torch

from tests.support.cuda.card import Card


def test_a_result_is_wrong_until_its_device_is_waited_for(card: Card) -> None:
    with torch.cuda.device("cuda:1"):
        logits = torch.arange(3.0, device="cuda:1") + 1
        host = torch.empty(3, pin_memory=True)
        host.copy_(logits, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
    with torch.cuda.device("cuda:0"):  # an event of another device waits for nothing
        other = torch.cuda.Event()
        other.record()
        other.synchronize()
    assert host.tolist() == [-777] * 3
    event.synchronize()
    assert host.tolist() == [1, 2, 3]


def test_pinned_memory_may_not_change_before_the_device_has_read_it(card: Card) -> None:
    host = torch.ones(3).pin_memory()
    copied = host.to("cuda:0", non_blocking=True)
    host.zero_()
    with pytest.raises(AssertionError, match="pinned memory was changed"):
        (copied + 1).cpu()


def test_what_makes_the_host_wait_is_noted(card: Card) -> None:
    table = torch.arange(6.0).pin_memory().to("cuda:0", non_blocking=True)
    _ = table[torch.zeros(2, dtype=torch.int32, device="cuda:0")] * 2 + 1
    assert card.waits == []
    _ = table[table > 2], table.sum().item(), bool(table.any())
    torch.ones(2).to("cuda:0", non_blocking=True)
    names = {"index by a mask", "_local_scalar_dense", "copy of pageable memory"}
    assert set(card.waits) == names


def test_tensors_of_two_devices_do_not_mix(card: Card) -> None:
    first = torch.ones(2, device="cuda:0")
    for other in (torch.ones(2), torch.ones(2, device="cuda:1")):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            _ = first + other
    with pytest.raises(RuntimeError):
        first.numpy()
