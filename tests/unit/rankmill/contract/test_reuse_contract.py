"""Known scores: packed without loss, reused only from the same model."""

from __future__ import annotations

import numpy as np
import pytest

from rankmill.contract.results import Scoring
from rankmill.contract.reuse import difference, fingerprint, pack, remarks, unpack

SCORING = Scoring(
    model_id="a",
    model_revision=None,
    weights_sha256="w",
    tokenizer_sha256="t",
    architecture="Bert",
    path="packed",
    path_reason="",
    precision="bf16",
    deterministic=True,
    device="cpu",
    max_length=512,
    activation="none",
    versions={"torch": "2.13.0", "pyarrow": "22"},
)


def other(**changes: object) -> Scoring:
    return SCORING.model_copy(update=changes)


def test_packed_scores_keep_their_bits() -> None:
    logits = np.array([0.0, -0.0, 1.5, -3.25e-42, 3.4e38, -1e-30], dtype=np.float32)
    n_tokens = np.array([0, 1, 512, 8192, 2**30 - 1, 7], dtype=np.int32)
    truncated = np.array([False, True, False, True, True, False])
    packed = pack(logits, n_tokens, truncated)
    assert packed.dtype == np.uint64 and (packed != 0).all()
    found = unpack(packed)
    assert [each.dtype for each in found] == [np.float32, np.int32, bool]
    assert found[0].tobytes() == logits.tobytes()
    assert np.array_equal(found[1], n_tokens) and np.array_equal(found[2], truncated)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights_sha256": "x"}, "differs in the weights"),
        ({"tokenizer_sha256": "x"}, "the tokenizer, configuration or template"),
        ({"max_length": 256}, "max_length (512 then, 256 now)"),
        ({"precision": "fp32"}, "the precision (bf16 then, fp32 now)"),
        ({"device": "cuda"}, "the kind of device (cpu then, cuda now)"),
        ({"path": "padded", "architecture": "X"}, "the architecture, the engine path"),
    ],
)
def test_a_changed_model_is_named_by_its_difference(
    changes: dict[str, object], reason: str
) -> None:
    assert reason in (difference(SCORING, other(**changes)) or "")
    assert fingerprint(SCORING) != fingerprint(other(**changes))


def test_model_names_and_the_activation_do_not_matter() -> None:
    same = other(model_id="b", model_revision="r", activation="sigmoid", path_reason="why")
    assert difference(SCORING, same) is None and fingerprint(SCORING) == fingerprint(same)


def test_versions_that_may_round_differently_are_remarked() -> None:
    assert remarks(SCORING, other(versions={"torch": "2.13.0", "pyarrow": "23"})) == ()
    assert remarks(SCORING, other(versions={"torch": "2.14.0"})) == (
        "torch was 2.13.0 and is 2.14.0, which may round differently",
    )
    assert "not deterministic" in remarks(other(deterministic=False), SCORING)[0]
