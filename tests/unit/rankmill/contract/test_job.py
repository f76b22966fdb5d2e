from __future__ import annotations

import pytest
from pydantic import ValidationError

from rankmill.contract.base import parse
from rankmill.contract.job import JobSpec
from rankmill.contract.job_id import job_id_for
from rankmill.contract.job_state import LEGAL_MOVES, JobState
from rankmill.contract.plan import InputFile, ShardSpec
from rankmill.errors import InputError

FILE = InputFile(uri="/in", n_rows=3, size_bytes=4, state="5")


def spec(**options: object) -> JobSpec:
    return JobSpec(input_uri="in", output_uri="out", **options)


def test_a_contract_survives_json_and_is_frozen() -> None:
    shard = ShardSpec(
        job_id="j", output_uri="o", shard_index=1, n_shards=2, start_row=0, stop_row=9
    )
    assert parse(ShardSpec, shard.to_json(), "here") == shard
    with pytest.raises(ValidationError, match="frozen"):
        shard.shard_index = 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input_uri": "a"}, "here: output_uri is missing"),
        ({"input_uri": "a", "output_uri": "b", "nope": 1}, "here: unknown option nope"),
        ({"input_uri": "a", "output_uri": "b", "version": 0}, "here: version"),
        ({"input_uri": "a", "output_uri": "b", "version": "1"}, "here: version '1'"),
        ({"input_uri": "a", "output_uri": "b", "version": True}, "here: version True"),
        ({"input_uri": "a", "output_uri": "b", "top_k": 0}, "here: top_k"),
        (
            {"input_uri": "a", "output_uri": "b", "passage_tokens": 64},
            "here: --passage-tokens 64 needs --long-docs",
        ),
        (
            {"input_uri": "a", "output_uri": "b", "passage_stride": 4},
            "here: --passage-stride 4 needs --long-docs",
        ),
        (
            {
                **{"input_uri": "a", "output_uri": "b", "long_docs": "max-passage"},
                **{"passage_tokens": 64, "passage_stride": 33},
            },
            "here: --passage-stride 33: passages of --passage-tokens 64 share half",
        ),
        (
            {"input_uri": "a", "output_uri": "b", "no_token": "no"},
            "here: --no-token no needs --yes-token",
        ),
        (
            {"input_uri": "a", "output_uri": "b", "yes_token": "id:7", "no_token": "id:7"},
            "here: --yes-token and --no-token are both id:7",
        ),
        (
            {
                **{"input_uri": "a", "output_uri": "b", "chat_template": "{{ messages }}"},
                "input_template": "{query}{document}",
            },
            "here: --chat-template and --input-template: give one",
        ),
        ({"input_uri": "a", "output_uri": "b", "prompt": ""}, "here: prompt ''"),
        ({"input_uri": "a", "output_uri": "b", "input_template": "{query}"}, "no {document}"),
    ],
)
def test_a_wrong_contract_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(JobSpec, values, "here")
    assert "\n" not in str(caught.value)


def test_a_job_id_depends_on_what_decides_its_result() -> None:
    name = job_id_for(spec(), (FILE,))
    assert name == job_id_for(spec(priority=9), (FILE,))
    assert name != job_id_for(spec(top_k=1), (FILE,))
    assert name != job_id_for(spec(long_docs="max-passage"), (FILE,))
    assert name != job_id_for(spec(max_query_tokens=9), (FILE,))
    assert name != job_id_for(spec(prompt="p"), (FILE,))
    assert name != job_id_for(spec(prompt_col="p"), (FILE,))
    assert name != job_id_for(spec(), (FILE.model_copy(update={"state": "6"}),))


# As the commit in tests/chaos/last_release computes them.
IDS = {
    "daa37f6aed48": {},
    "f2db1e4f4152": {
        **{"input_version": "3", "model_id": "x", "model_revision": "main", "layout": "run"},
        **{"queries": "q", "corpus": "c", "queries_version": "1", "corpus_version": "2"},
        **{"query_col": "a", "document_col": "b", "title_col": "none", "query_id_col": "c"},
        **{"doc_id_col": "d", "keep_cols": ("a", "b"), "explode": True, "trec_run": True},
        **{"cluster": True, "duplicates": "keep", "damaged": "reject", "top_k": 4},
        **{"max_length": 64, "precision": "fp32", "activation": "none", "max_batch_tokens": 9},
        **{"shard_pairs": 4, "priority": 3, "max_reject_rate": 0.5, "reuse_from": "latest"},
        "for_reuse": True,
    },
}
PARTITIONED = InputFile(
    uri="/in/lang=de/a",
    n_rows=3,
    size_bytes=4,
    state="5",
    partition={"lang": "de"},
    names={"a": "b"},
    role="corpus",
)


@pytest.mark.parametrize("name", IDS)
def test_a_job_id_is_that_of_the_last_release(name: str) -> None:
    file = FILE.model_copy(update={"uri": "/in.parquet"})
    files = (file, PARTITIONED) if IDS[name] else (file,)
    assert job_id_for(spec(**IDS[name]), files) == name


def test_final_states_have_no_legal_move() -> None:
    assert {state for state in JobState if state.is_final} == {
        JobState.SUCCEEDED,
        JobState.SUCCEEDED_WITH_REJECTS,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.INTERRUPTED,
    }
    assert set(LEGAL_MOVES) == set(JobState)


@pytest.mark.parametrize("name", ["query_col", "input_uri", "keep_cols", "model_id", "output_uri"])
def test_bytes_that_are_not_utf_8_are_refused(name: str) -> None:
    given = {"input_uri": "in", "output_uri": "out", name: "a\udcff"}
    if name == "keep_cols":
        given[name] = ("a", "\ud800")
    with pytest.raises(ValidationError, match=r"is not UTF-8 text|as a unicode string"):
        JobSpec(**given)
