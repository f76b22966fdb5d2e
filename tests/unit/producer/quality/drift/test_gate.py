"""Gates: what is understood, what is refused, and what they say of a drift."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from producer.quality.drift.gate import Gate, check, check_answerable, parse, places
from rankmill.contract.drift import (
    Churn,
    Comparison,
    Drift,
    Keys,
    Presence,
    RankBiasedOverlap,
    ScoreShift,
    Side,
)
from rankmill.errors import InputError

SIDE = Side(
    job_id="1",
    output_uri="out",
    submitted_at=datetime(2026, 11, 21, tzinfo=UTC),
    model_id="null",
    model_revision=None,
    top_k=None,
    n_rows=1,
    n_pairs=1,
    n_queries=1,
)
DRIFT = Drift(
    old=SIDE,
    new=SIDE,
    keys=Keys(query="id", document="id"),
    queries=Presence.of(10, 8, 6),
    pairs=Presence.of(100, 80, 60),
    scores=ScoreShift(
        n_pairs=60,
        mean_before=0.5,
        mean_after=0.25,
        mean_shift=-0.25,
        mean_abs_shift=0.5,
        shift_quantiles={},
        ks=0.125,
        histogram=(),
    ),
    churn=(Churn(k=5, overlap=0.75, churn=0.25, n_changed=3),),
    rbo=RankBiasedOverlap(p=0.9, depth=100, mean=0.8, n_equal=1, quantiles={}),
    ndcg=(
        Comparison(
            measure="nDCG@5", before=0.5, after=0.25, p_value=1, n_better=0, n_worse=1, n_equal=0
        ),
    ),
    most_changed=(),
)


@pytest.mark.parametrize(
    ("expression", "gate"),
    [
        ("churn@10>0.3", Gate("churn@10>0.3", "churn", 10, ">", 0.3)),
        (" churn @ 10 >= .3 ", Gate("churn @ 10 >= .3", "churn", 10, ">=", 0.3)),
        ("rbo<0.8", Gate("rbo<0.8", "rbo", None, "<", 0.8)),
        ("ndcg@10<-0.02", Gate("ndcg@10<-0.02", "ndcg", 10, "<", -0.02)),
        ("mean_shift<=-1e-3", Gate("mean_shift<=-1e-3", "mean_shift", None, "<=", -0.001)),
        ("mean_abs_shift>12.", Gate("mean_abs_shift>12.", "mean_abs_shift", None, ">", 12)),
    ],
)
def test_a_gate_is_understood(expression: str, gate: Gate) -> None:
    assert parse(expression) == gate


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "write it like churn@10>0.3"),
        ("churn@10", "write it like"),
        ("churn@10=0.3", "write it like"),
        ("churn@10>30%", "write it like"),
        ("churn@10>0.3 or rbo<1", "write it like"),
        ("churn@10>nan", "write it like"),
        ("churn@-1>0.3", "write it like"),
        ("0.3<churn@10", "write it like"),
        ("churn@10>0.3\nrbo<1", "write it like"),
        ("churn@10>\u0663", "write it like"),  # a digit, but not an ASCII one
        ("Churn@10>0.3", "write it like"),
        ("chrun@10>0.3", "unknown measure 'chrun'; the known ones are churn@K, overlap@K"),
        ("churn>0.3", "churn needs a place from 1 on, as churn@10"),
        ("churn@0>0.3", "churn needs a place from 1 on, as churn@10"),
        ("rbo@10<0.3", "rbo takes no @10"),
        ("churn@10>30", "churn lies between 0 and 1"),
        ("ndcg@10<-2", "ndcg lies between -1 and 1"),
        ("mean_shift>1e999", "mean_shift lies between -inf and inf"),
    ],
)
def test_anything_else_is_refused_in_one_line(expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parse(expression)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("churn@5>{}", 0.25),
        ("overlap@5>{}", 0.75),
        ("ndcg@5>{}", -0.25),
        ("rbo>{}", 0.8),
        ("ks>{}", 0.125),
        ("mean_shift>{}", -0.25),
        ("mean_abs_shift>{}", 0.5),
        ("new>{}", 0.25),
        ("vanished>{}", 0.4),
        ("new_queries>{}", 0.25),
        ("vanished_queries>{}", 0.4),
    ],
)
def test_a_gate_fails_when_it_holds(expression: str, value: float) -> None:
    holding = expression.replace(">", ">=").format(value)
    gates = [parse(each) for each in (expression.format(value), holding)]
    result = check(gates, DRIFT)
    assert [each.value for each in result.checks] == [value, value]
    assert [each.failed for each in result.checks] == [False, True]
    assert not result.passed and result.message == f"{holding}: it is {value:g}"
    assert check(gates[:1], DRIFT).passed and check(gates[:1], DRIFT).message == ""
    below = [parse(expression.replace(">", op).format(value)) for op in ("<", "<=")]
    assert [each.failed for each in check(below, DRIFT).checks] == [False, True]


def test_the_places_of_gates_are_measured_and_judgments_asked_for() -> None:
    gates = [parse(each) for each in ("churn@5>0.3", "rbo<0.8", "ndcg@20<0")]
    assert places(gates) == {5, 20}
    check_answerable(gates, has_qrels=True)
    check_answerable(gates[:2], has_qrels=False)
    with pytest.raises(InputError, match=r"gate 'ndcg@20<0' needs judgments: give --qrels"):
        check_answerable(gates, has_qrels=False)


def test_a_measure_without_a_value_fails() -> None:
    nothing = DRIFT.model_copy(update={"scores": None, "rbo": None, "churn": (), "ndcg": ()})
    names = ("churn@5", "overlap@5", "ndcg@5", "rbo", "ks", "mean_shift", "mean_abs_shift")
    result = check([parse(f"{name}>0.5") for name in names], nothing)
    assert all(each.failed and each.value is None for each in result.checks)


def test_a_drift_comes_back_from_its_json() -> None:
    drift = DRIFT.model_copy(update={"gate": check([parse("rbo<0.9")], DRIFT)})
    assert Drift.model_validate_json(drift.model_dump_json()) == drift
