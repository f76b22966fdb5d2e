"""The claim of a dead process is taken over at once on its own machine, and on no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rankmill.ledger import claims as claims_module
from rankmill.ledger.claims import Claim
from rankmill.ledger.jobs import Ledger

TAKE = """
from rankmill.ledger.claims import Claim
from rankmill.ledger.jobs import ledger
assert Claim.take(ledger().claims, "job", 0, 30)
"""


def test_only_the_same_machine_knows_that_the_holder_is_dead(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", TAKE], check=True)
    with monkeypatch.context() as other_machine:
        other_machine.setattr(claims_module, "machine_id", lambda: "another of the same name")
        assert Claim.take(ledger.claims, "job", 0, 30) is None
    assert Claim.take(ledger.claims, "job", 0, 30) is not None
