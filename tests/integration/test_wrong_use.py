"""Errors of a first try: names of columns, values of options, lengths. Each is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from tests.support.command import called, rankmill
from tests.support.inputs import everything_under, pairs, write
from tests.support.models.checkpoints import bert


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--top-k", "0"), "--top-k 0 should be greater than or equal to 1"),
        (("--max-reject-rate", "1.5"), "--max-reject-rate 1.5 should be less than or equal to 1"),
        (("--revision", "../x"), "--revision '../x' is not a commit, a branch or a tag"),
        (("--query-col", "q"), "column 'q' is missing; the columns there are: query_id, doc_id,"),
        (("--passage-tokens", "64"), "--passage-tokens 64 needs --long-docs max-passage"),
        (
            ("--long-docs", "mean-top3", "--passage-tokens", "384"),
            "--passage-tokens 384: a pair has at most 384 tokens",
        ),
        (("--doc-id-col", "d"), "; --doc-id-col names another"),
    ],
)
def test_a_refused_option_is_named_with_its_value(
    tmp_path: Path, options: tuple[str, ...], line: str
) -> None:
    write(pairs(2, 2), tmp_path / "in.parquet")
    before = everything_under(tmp_path)
    done = called("run", tmp_path / "in.parquet", tmp_path / "out", "--model", "demo", *options)
    assert done.returncode == 2, done.stderr
    [shown] = done.stderr.strip().splitlines()
    assert line in shown
    assert everything_under(tmp_path) == before


def test_texts_under_other_names_are_not_taken_for_a_run(tmp_path: Path) -> None:
    table = {"query_id": ["a"], "doc_id": ["b"], "frage": ["c"], "absatz": ["d"]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    done = called("run", tmp_path / "in.parquet", tmp_path / "out", "--model", "demo")
    assert done.returncode == 2
    [shown] = done.stderr.strip().splitlines()
    assert "no text columns 'query' and 'document'; the columns there are: query_id" in shown
    assert "name the texts with --query-col and --document-col" in shown


@pytest.mark.parametrize("command", ["run", "submit", "estimate", "schedule add"])
def test_a_length_beyond_the_models_is_refused(
    tmp_path: Path, command: str, broker_url: str
) -> None:
    write(pairs(2, 2), tmp_path / "in.parquet")
    before = everything_under(tmp_path)
    places = [tmp_path / "in.parquet", tmp_path / "out"][: 1 if command == "estimate" else 2]
    if command == "schedule add":
        places = ["nightly", *places, "--cron", "0 2 * * *"]
    options = ("--model", "demo", "--max-length", "385")
    done = called(*command.split(), *places, *options)
    assert done.returncode == 2 and done.stdout == ""
    [shown] = done.stderr.strip().splitlines()
    assert "--max-length 385: demo takes at most 384 tokens" in shown
    assert everything_under(tmp_path) == before


def test_a_limit_that_no_file_states_is_reported(tmp_path: Path) -> None:
    """A default of transformers, which only the worker has."""
    write(pairs(2, 2), tmp_path / "in.parquet")
    model = bert(tmp_path / "model", num_labels=1, max_position_embeddings=512)
    for name, key in (
        ("config", "max_position_embeddings"),
        ("tokenizer_config", "model_max_length"),
    ):
        path = model / f"{name}.json"
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))
    done = called(
        *("run", tmp_path / "in.parquet", tmp_path / "out", "--model", model),
        *("--max-length", "100000"),
    )
    assert done.returncode == 0, done.stderr
    assert "512 tokens, all that the model takes, not 100,000" in done.stdout + done.stderr


def test_a_model_that_only_the_worker_can_refuse_leaves_no_output(tmp_path: Path) -> None:
    write(pairs(2, 2), tmp_path / "in.parquet")
    model = bert(tmp_path / "model", num_labels=1)
    tensors = load_file(model / "model.safetensors")
    lacking = [name for name in tensors if "intermediate.dense.weight" in name]  # of every layer
    left = {name: each for name, each in tensors.items() if name not in lacking}
    save_file(left, model / "model.safetensors", {"format": "pt"})
    done = called("run", tmp_path / "in.parquet", tmp_path / "out", "--model", model)
    assert done.returncode == 2
    assert "the weights lack bert.encoder.layer.0.intermediate.dense.weight" in done.stderr
    assert not (tmp_path / "out").exists()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    again = called("resume", tmp_path / "out")  # its record is not in the output
    assert again.returncode == 0, again.stderr


def test_an_unnamed_column_is_refused_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("frage,document\na,b\n")
    done = called("run", tmp_path / "in.csv", tmp_path / "out", "--model", "demo")
    assert done.returncode == 2, done.stderr
    assert "column 'query' is missing; the columns there are: frage, document" in done.stderr
    assert "--query-col names another" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_terminal_that_is_not_utf_8_gets_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    write(pairs(2, 2), tmp_path / "in.parquet")
    done = rankmill("run", tmp_path / "in.parquet", tmp_path / "out", "--model", "demo")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_anywhere_on_the_line_shows_the_traceback(tmp_path: Path, place: int) -> None:
    words = ["status", str(tmp_path)]
    plain = called(*words)
    assert plain.returncode == 2 and "Traceback" not in plain.stderr
    debug = called(*words[:place], "--debug", *words[place:])
    assert debug.returncode != 0 and debug.stderr.startswith("Traceback")
    assert "JobUnknown" in debug.stderr
