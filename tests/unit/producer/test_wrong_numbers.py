"""Numbers that a command's flags would refuse are refused by Python's calls, too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from producer import diff, estimate, evaluate, resume
from producer.calls.job import Job
from producer.jobs.handle import JobHandle
from rankmill.errors import InputError
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Output
from rankmill.settings import Settings
from tests.support.finished import finished, planned

QRELS = {"q0": {"a": 1}}
WITH_TEXT: Any = {"q0": {"a": "1"}}
ROWS = [
    {"query": "q", "document": str(n), "query_id": "q0", "doc_id": doc_id}
    for n, doc_id in enumerate("ab")
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return finished(planned(ROWS, tmp_path_factory.mktemp("job")))


def handle(output: Output) -> JobHandle:
    return JobHandle("x", output, Ledger.connect(Settings(broker_url="redis://localhost:1/0")))


def estimated(**options: Any) -> Callable[[Output], object]:
    return lambda output: estimate("in.parquet", model="null", **options)


CALLS: dict[str, tuple[Callable[[Output], object], str]] = {
    "no pairs": (estimated(pairs_per_s=0), "pairs_per_s 0: give a positive number"),
    "NaN pairs": (estimated(pairs_per_s=math.nan), "pairs_per_s nan: give a positive number"),
    "a price below 0": (estimated(price_per_hour=-1), "price_per_hour -1: give a positive"),
    "no device": (estimated(devices=0), "devices 0: give a positive number"),
    "no place": (lambda output: diff(output, output, k=()), "churn at no place: a place is"),
    "queries below 0": (lambda output: diff(output, output, n_queries=-1), "show: -1; give 0"),
    "a huge cutoff": (lambda output: evaluate(output, QRELS, recall_at=[2**70]), "at most 2147"),
    "a grade as text": (
        lambda output: evaluate(output, WITH_TEXT),
        "a grade of the judgments is not a whole number",
    ),
    "a page's price": (
        lambda output: Job.of(handle(output)).report(price_per_hour=math.nan),
        "price_per_hour nan: give a positive number",
    ),
    "no share": (
        lambda output: resume(handle(output), max_reject_rate=math.nan),
        "--max-reject-rate nan: give a share from 0 to 1",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_number_is_refused_in_one_line(name: str, done: Output) -> None:
    call, message = CALLS[name]
    with pytest.raises(InputError, match=message) as refused:
        call(done)
    assert "\n" not in str(refused.value)
