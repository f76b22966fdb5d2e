"""Gates: conditions that must not hold between two outputs, such as `churn@10>0.3`.

    gate      MEASURE [@K] (> | >= | < | <=) NUMBER       spaces are allowed between them
    MEASURE   churn@K overlap@K ndcg@K rbo ks mean_shift mean_abs_shift
              new vanished new_queries vanished_queries

A gate fails if its condition holds, or if there is nothing to measure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from rankmill.contract.drift import Drift, GateCheck, GateResult
from rankmill.errors import InputError

_FORM = re.compile(
    r"\s*(?P<measure>[a-z_]+)\s*(@\s*(?P<k>\d{1,6})\s*)?(?P<operator>[<>]=?)\s*"
    r"(?P<number>[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?)\s*",
    re.ASCII,
)
_HOLDS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class _Measure:
    """A measure that gates may use.

    Attributes:
        value: returns the value of a drift at k; k is 0 if the measure takes none.
        least, most: bounds of the value.
        takes_k: whether the measure needs @K.
    """

    value: Callable[[Drift, int], float | None]
    least: float = 0.0
    most: float = 1.0
    takes_k: bool = False


@dataclass(frozen=True)
class Gate:
    """A parsed gate; `k` is None if the measure takes none."""

    expression: str
    measure: str
    k: int | None
    operator: str
    bound: float


def parse(expression: str) -> Gate:
    """Parse a gate.

    Raises:
        InputError: the text is not a gate, or its bound is outside the measure's range.
    """
    found = _FORM.fullmatch(expression)
    if found is None:
        raise InputError(f"gate {expression!r}: write it like churn@10>0.3 or rbo<0.8")
    name, k = found["measure"], found["k"]
    measure = _MEASURES.get(name)
    if measure is None:
        known = ", ".join(f"{n}@K" if each.takes_k else n for n, each in _MEASURES.items())
        raise InputError(
            f"gate {expression!r}: unknown measure '{name}'; the known ones are {known}"
        )
    if measure.takes_k and not int(k or 0):
        raise InputError(f"gate {expression!r}: {name} needs a place from 1 on, as {name}@10")
    if not measure.takes_k and k is not None:
        raise InputError(f"gate {expression!r}: {name} takes no @{k}")
    bound = float(found["number"])
    if not (isfinite(bound) and measure.least <= bound <= measure.most):
        raise InputError(
            f"gate {expression!r}: {name} lies between {measure.least:g} and {measure.most:g}"
        )
    return Gate(expression.strip(), name, int(k) if k else None, found["operator"], bound)


def check_answerable(gates: Iterable[Gate], *, has_qrels: bool) -> None:
    """Refuse gates that cannot be measured.

    Raises:
        InputError: a gate needs judgments and there are none.
    """
    for gate in gates:
        if gate.measure == "ndcg" and not has_qrels:
            raise InputError(f"gate {gate.expression!r} needs judgments: give --qrels")


def places(gates: Iterable[Gate]) -> set[int]:
    """Return the places K that the gates need."""
    return {gate.k for gate in gates if gate.k is not None}


def check(gates: Sequence[Gate], drift: Drift) -> GateResult:
    """Check a drift, measured at the gates' `places`, against the gates."""
    checks = tuple(_check(gate, drift) for gate in gates)
    return GateResult(passed=not any(each.failed for each in checks), checks=checks)


def _check(gate: Gate, drift: Drift) -> GateCheck:
    value = _MEASURES[gate.measure].value(drift, gate.k or 0)
    failed = value is None or bool(_HOLDS[gate.operator](value, gate.bound))
    return GateCheck(expression=gate.expression, value=value, failed=failed)


_MEASURES = {
    "churn": _Measure(
        lambda drift, k: next((each.churn for each in drift.churn if each.k == k), None),
        takes_k=True,
    ),
    "overlap": _Measure(
        lambda drift, k: next((each.overlap for each in drift.churn if each.k == k), None),
        takes_k=True,
    ),
    "ndcg": _Measure(
        lambda drift, k: next(
            (each.after - each.before for each in drift.ndcg if each.measure == f"nDCG@{k}"), None
        ),
        least=-1.0,
        takes_k=True,
    ),
    "rbo": _Measure(lambda drift, _: drift.rbo.mean if drift.rbo else None),
    "ks": _Measure(lambda drift, _: drift.scores.ks if drift.scores else None),
    "mean_shift": _Measure(
        lambda drift, _: drift.scores.mean_shift if drift.scores else None,
        least=-inf,
        most=inf,
    ),
    "mean_abs_shift": _Measure(
        lambda drift, _: drift.scores.mean_abs_shift if drift.scores else None, most=inf
    ),
    "new": _Measure(lambda drift, _: drift.pairs.new_share),
    "vanished": _Measure(lambda drift, _: drift.pairs.vanished_share),
    "new_queries": _Measure(lambda drift, _: drift.queries.new_share),
    "vanished_queries": _Measure(lambda drift, _: drift.queries.vanished_share),
}
