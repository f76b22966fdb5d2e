"""Contracts of a newer release: optional fields are kept, a newer major is refused."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import Field
from pydantic_core import to_jsonable_python

from producer.jobs.submit import submit
from producer.schedules.spec import Firing, Latest, ScheduleSpec
from rankmill.contract.base import Contract, Part, Since, parse, parse_given
from rankmill.contract.drift import Drift
from rankmill.contract.estimate import Measurement, MeasureRequest
from rankmill.contract.inspection import (
    CheckRequest,
    DescribeRequest,
    Descriptions,
    ModelCheck,
)
from rankmill.contract.job import (
    JobMessage,
    JobOptions,
    JobRecord,
    JobSpec,
    SubmitMessage,
)
from rankmill.contract.job_id import job_id_for
from rankmill.contract.plan import InputFile, Plan, ShardMessage, ShardSpec
from rankmill.contract.results import End, Failure, Manifest, ShardReport, Times
from rankmill.contract.reuse import KnownScores
from rankmill.errors import InputError, ReleaseTooOld
from rankmill.models.store import StoredModel
from rankmill.notify import Event, NotifyMessage
from rankmill.output.local_run import LocalRun
from rankmill.settings import CHECKOUT

AT = "2026-11-28T02:15:00Z"
SPEC = {"input_uri": "/in", "output_uri": "/out"}
FILE = {"uri": "/in", "n_rows": 3, "size_bytes": 4, "state": "5"}
SHARD = {"job_id": "j", "output_uri": "/out", "shard_index": 0, "n_shards": 1}
SHARD |= {"start_row": 0, "stop_row": 9}
COLUMNS = {"query": "q", "document": "d", "query_id": None, "doc_id": None, "kept": {}}
COLUMNS |= {"version": 2, "prompt": "p"}
EVENT = {"event_id": "e", "kind": "failed", "occurred_at": AT, "job_id": "j", "state": None}
EVENT |= {"output_uri": "/out"}
COUNTS = {"n_rows": 1, "n_done": 1, "n_rejected": 0, "n_tokens": 1}
SPEED = {
    **{"n_pairs": 1, "n_tokens": 2, "seconds": 3.0, "minor": 1},
    **{"n_computed": 2, "max_batch_tokens": 9},
}
REUSE = {"source_uri": "/s", "source_job_id": None, "n_reused": 0, "n_new": 1, "refused": "why"}
AGREEMENT = {"precision": "bf16", "n_pairs": 1, "n_queries": 1, "kendall_tau": 1.0}
AGREEMENT |= {"top10_overlap": 1.0, "max_difference": 0.0}
NO_PRESENCE = {"n_common": 0, "n_new": 0, "n_vanished": 0, "new_share": 0, "vanished_share": 0}
SIDE = {"job_id": "j", "output_uri": "/out", "submitted_at": AT, "model_id": "m"}
SIDE |= {"model_revision": None, "top_k": None, "n_rows": 1, "n_pairs": 1, "n_queries": 1}


def stored(name: str) -> dict[str, Any]:
    """Return a control file of the output in tests/v0_1."""
    content: dict[str, Any] = json.loads((CHECKOUT / "tests/v0_1/out/_rankmill" / name).read_text())
    return content


SAMPLES: dict[type[Contract], dict[str, Any]] = {
    JobSpec: SPEC,
    JobOptions: {"input_uri": "/in", "version": 3, "columns": ["a"], "fuse": "rrf"},
    JobRecord: stored("job.json"),
    JobMessage: {"job_id": "j", "output_uri": "/out"},
    SubmitMessage: {"spec": SPEC},
    Plan: stored("plan.json"),
    ShardSpec: SHARD,
    ShardMessage: {"shard": SHARD},
    ShardReport: {
        **stored("shards/00000.json"),
        **{"minor": 1, "logits": {"width": 0.5, "first": -3, "counts": [1, 0, 2]}},
        "reordering": {
            **{"first_stage": "score", "n_queries": 2, "n_new_first": 1, "correlations": -0.5},
            **{"n_deep": 1, "n_new": 3},
            "by_rank": {"n_rows": [2, 1], "logits": [1.5, -2.0], "squares": [1.25, 4.0]},
            "slices": [
                {
                    **{"max_tokens": 64, "truncated": False, "n_rows": 3},
                    **{"n_first": 1, "n_deep": 2, "logits": -0.5},
                }
            ],
            "moved": [
                {
                    **{"movement": 1.5, "n_rows": 2},
                    "rows": [{"row": 7, "before": 2, "after": 1, "score": 0.5}],
                }
            ],
        },
    },
    Manifest: {**stored("manifest.json"), "reuse": REUSE, "agreement": AGREEMENT},
    Times: {"job_id": "j", "started_at": AT, "ended_at": AT, "covered_s": 1.5},
    End: {"file": "cancelled.json", "content": "{}"},
    Failure: {"job_id": "j", "message": "m", "exit_code": 1, "shard_index": 0, "failed_at": AT},
    KnownScores: {
        **{"job_id": "j", "source_uri": "/s", "source_job_id": "i", "n_known": 2},
        "scoring": stored("shards/00000.json")["scoring"]
        | {"minor": 2, "recipe": "a", "recipe_sha256": "b", "prompt": "p"},
    },
    Event: {**EVENT, "counts": COUNTS},
    NotifyMessage: {"event": EVENT},
    ScheduleSpec: {
        **{"name": "n", "cron": "0 0 * * *", "job": {"input_uri": "/in"}, "output_uri": "/out"},
    },
    LocalRun: {
        **{"kind": "run", "job_id": "j", "host": "h", "boot": "b", "pid_namespace": "p", "pid": 1},
        **{"pid_started": "1", "broker_url": "redis://h", "started_at": AT, "seen_at": AT},
    },
    StoredModel: {
        **{"model_id": "m", "pinned": "c", "revisions": {}},
        "commits": [
            {
                **{"commit": "c", "files": [{"name": "f", "n_bytes": 1, "sha256": "s"}]},
                **{"code": {"owner/code": "d"}, "minor": 1},
                **{"pulled_at": AT, "license": "mit"},
            }
        ],
    },
    Firing: {"schedule": "n", "due": AT, "state": "running", "noted_at": AT},
    Latest: {
        **{"schedule": "n", "due": AT, "job_id": "j", "output_uri": "/out"},
        **{"fingerprint": None, "published_at": AT},
    },
    Drift: {
        **{"old": SIDE, "new": SIDE, "keys": {"query": "id", "document": "id"}},
        **{"queries": NO_PRESENCE, "pairs": NO_PRESENCE, "scores": None, "churn": []},
        **{"rbo": None, "ndcg": [], "most_changed": []},
    },
    MeasureRequest: {
        **{"options": {"input_uri": "/in"}, "columns": COLUMNS},
        **{"model_folder": None, "calibrate_s": 0},
    },
    Measurement: {
        **{"refused": {}, "n_tokens": [], "truncated": [], "path": "p", "path_reason": ""},
        **{
            "precision": "fp32",
            "max_length": 9,
            "device": "cpu",
            "calibration": SPEED,
            "faster": {"times": 2.7, "agreement": AGREEMENT},
            "n_passages": [1, 3],
            "n_shared": [0, 2],
        },
    },
    DescribeRequest: {"specs": [SPEC]},
    Descriptions: {
        "found": [{"path": "packed", "path_reason": "", "max_length": 9, "recipe": None}],
    },
    CheckRequest: {"spec": SPEC, "calibrate_s": 1, "compares": True},
    ModelCheck: {
        **{"folder": "/m", "license": None, "scoring": stored("shards/00000.json")["scoring"]},
        **{"memory_bytes": 1, "device_name": "cpu", "calibration": SPEED, "agreement": None},
        "parity": {
            **{"peer": "6", "n_pairs": 1, "max_difference": 0.0, "max_score_difference": 0.0},
            **{"scale": 1.0, "kendall_tau": 1.0},
        },
        "no_parity": "",
    },
}
UNKNOWN = {"minor": 7, "of_a_newer_release": {"numbers": [1, None, 0.5]}}
names = [each.__name__ for each in SAMPLES]


def parts_of(value: Any) -> list[Part]:
    """Return every contract and part in a value."""
    if isinstance(value, Part):
        fields = (getattr(value, name) for name in type(value).model_fields)
        return [value, *(part for field in fields for part in parts_of(field))]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [part for each in value for part in parts_of(each)] if isinstance(value, tuple) else []


def as_newer(value: Any, changes: dict[str, Any]) -> Any:
    """Return a value's JSON with these changes in each contract and part."""
    if isinstance(value, Part):
        names = value.model_dump(exclude={"minor"})
        fields = {name: as_newer(getattr(value, name), changes) for name in names}
        return {**fields, **changes}
    if isinstance(value, tuple):
        return [as_newer(each, changes) for each in value]
    return to_jsonable_python(value, inf_nan_mode="constants")


@pytest.mark.parametrize("contract", SAMPLES, ids=names)
def test_an_optional_field_of_a_newer_release_is_kept_and_passed_on(
    contract: type[Contract],
) -> None:
    newer = as_newer(parse(contract, SAMPLES[contract], "here"), UNKNOWN)
    read = parse(contract, json.dumps(newer).encode(), "here")
    assert parts_of(read)
    for part in parts_of(read):
        assert part.model_extra == {"of_a_newer_release": UNKNOWN["of_a_newer_release"]}
    assert json.loads(read.to_json()) == newer
    assert read.model_copy().model_dump(mode="json") == newer
    assert parse(contract, read.model_dump(), "here") == read


@pytest.mark.parametrize("contract", SAMPLES, ids=names)
def test_an_unknown_field_of_a_known_minor_is_an_error(contract: type[Contract]) -> None:
    sample = parse(contract, SAMPLES[contract], "here")
    for changes in ({"top_kk": 1}, {"top_kk": 1, "minor": 0}):
        with pytest.raises(InputError, match=r"here: unknown option .*top_kk"):
            parse(contract, json.dumps(as_newer(sample, changes)).encode(), "here")


@pytest.mark.parametrize("contract", SAMPLES, ids=names)
def test_another_major_is_refused_with_what_to_upgrade(contract: type[Contract]) -> None:
    newest = contract.newest.major
    content = {"version": newest + 1, "all else": "may have changed"}
    said = f"here: .*version {newest + 1}.* knows {newest}; upgrade Rankmill"
    for form in (content, json.dumps(content).encode()):
        with pytest.raises(ReleaseTooOld, match=said):
            parse(contract, form, "here")


def test_another_major_is_refused_in_a_part_of_a_file() -> None:
    record = SAMPLES[JobRecord]
    with pytest.raises(ReleaseTooOld, match="here: "):
        parse(JobRecord, {**record, "spec": {**record["spec"], "version": 4}}, "here")


def test_every_contract_has_a_sample() -> None:
    parsed = [parse(contract, sample, "here") for contract, sample in SAMPLES.items()]
    found = {type(part) for each in parsed for part in parts_of(each)}

    def subclasses(of: type[Part]) -> set[type[Part]]:
        return {of}.union(*(subclasses(each) for each in of.__subclasses__()))

    # The others describe what Celery itself writes round a message.
    others = ("tests", "worker.admission")
    ours = {each for each in subclasses(Contract) if not each.__module__.startswith(others)}
    assert {each.__name__ for each in ours - found - {Contract}} == set()


@pytest.mark.parametrize("minor", [0, 7])
def test_what_a_user_writes_has_no_unknown_field(minor: int) -> None:
    with pytest.raises(InputError, match="here: unknown option top_kk; did you mean top_k"):
        parse_given(JobSpec, {**SPEC, "minor": minor, "top_kk": 5}, "here")
    with pytest.raises(InputError, match="submit: unknown option top_kk"):
        submit("/in", "/out", minor=minor, top_kk=5)


class NewerOptions(JobSpec):
    """The options of a release to come."""

    label: Annotated[str | None, Since(minor=1)] = None
    depth: Annotated[int, Since(minor=2)] = 8
    voice: Annotated[str, Since(major=4)] = ""


class NewestOptions(NewerOptions):
    """Those of the release after it."""

    tags: Annotated[tuple[str, ...], Since(minor=3)] = Field(default_factory=tuple)


def test_a_contract_has_the_lowest_version_that_its_fields_allow() -> None:
    plain = NewerOptions(**SPEC)
    assert plain.to_json() == JobSpec(**SPEC).to_json()  # this release reads it
    assert parse(JobSpec, plain.to_json(), "here") == JobSpec(**SPEC)
    used = plain.model_copy(update={"label": "a"})
    assert used.model_dump() == {**JobSpec(**SPEC).model_dump(), "minor": 1, "label": "a"}
    assert parse(JobSpec, used.to_json(), "here").model_extra == {"label": "a"}
    assert parse(NewestOptions, used.to_json(), "here").label == "a"
    changed = used.model_copy(update={"voice": "p", "depth": 9})
    assert (changed.model_dump()["version"], changed.model_dump()["minor"]) == (4, 2)
    with pytest.raises(ReleaseTooOld):
        parse(JobSpec, changed.to_json(), "here")
    assert parse(NewerOptions, changed.to_json(), "here").voice == "p"


def test_a_reader_keeps_what_it_does_not_know_next_to_what_it_does() -> None:
    written = NewestOptions(**SPEC, label="a", tags=("x",)).to_json()
    read = parse(NewerOptions, written, "here")
    assert (read.label, read.model_extra, read.minor) == ("a", {"tags": ["x"]}, 3)
    assert json.loads(read.to_json()) == json.loads(written)
    misspelt = written.replace(b'"minor": 3', b'"minor": 2')
    with pytest.raises(InputError, match="unknown option tags"):
        parse(NewerOptions, misspelt, "here")


def test_a_selection_of_fields_has_no_version() -> None:
    newer = parse(JobSpec, {**SPEC, **UNKNOWN}, "here")
    assert newer.model_dump(include={"top_k"}) == {"top_k": None}
    assert "minor" not in newer.model_dump(exclude={"top_k"})


def test_a_job_id_changes_only_with_a_field_that_changes_the_result() -> None:
    files = (InputFile(**FILE),)
    name = job_id_for(JobSpec(**SPEC), files)
    assert name == job_id_for(NewestOptions(**SPEC), files)
    assert name == job_id_for(NewestOptions(**SPEC, label="a", depth=1), files)
    assert name != job_id_for(NewestOptions(**SPEC, voice="p"), files)
    kept = parse(JobSpec, {**SPEC, **UNKNOWN}, "here")
    assert name == job_id_for(kept, files)
    again = parse(NewestOptions, NewestOptions(**SPEC, voice="p").to_json(), "here")
    assert job_id_for(again, files) == job_id_for(NewestOptions(**SPEC, voice="p"), files)
