"""Paths in a file are relative to the file, wherever the command runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer import profile
from producer.schedules.file import read_file

PROFILE = """
[job]
model = "mine"
queries = "q/*.jsonl, /abs.jsonl"
corpus = "s3://bucket/corpus"
chat_template = "t.jinja"
reuse_from = "../scored/monday"

[settings]
models = "store"
scratch = "scratch"
runtime = "run"
broker_ca = "~/ca.pem"
allowed_prefixes = ["data", "s3://bucket/"]
allowed_models = ["mine", "BAAI/*", "demo"]
"""

SCHEDULES = """
[schedule.night]
cron = "15 2 * * *"
input = "in/dt={date},{latest:more/dt=*}/x"
output = "out"
qrels = "judgments.qrels"
model = "./mine"
reuse_from = "scored/monday"

[schedule.latest]
cron = "15 2 * * *"
input = "/in"
output = "s3://bucket/out"
model = "demo"
reuse_from = "latest"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a model and enter one below it, in which nothing is."""
    (tmp_path / "mine").mkdir()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setenv("HOME", "/home/me")
    return tmp_path


def test_those_of_a_profile(folder: Path) -> None:
    (folder / "rankmill.toml").write_text(PROFILE)
    found = profile.current()
    assert found is not None
    assert found.options == {
        "model_id": f"{folder}/mine",
        "queries": f"{folder}/q/*.jsonl,/abs.jsonl",
        "corpus": "s3://bucket/corpus",
        "chat_template": f"{folder}/t.jinja",
        "reuse_from": f"{folder}/../scored/monday",
    }
    assert found.variables == {
        "RANKMILL_MODELS": f"{folder}/store",
        "RANKMILL_SCRATCH": f"{folder}/scratch",
        "RANKMILL_RUNTIME": f"{folder}/run",
        "RANKMILL_BROKER_CA": "/home/me/ca.pem",
        "RANKMILL_ALLOWED_PREFIXES": f"{folder}/data,s3://bucket/",
        "RANKMILL_ALLOWED_MODELS": f"{folder}/mine,BAAI/*,demo",
    }
    (folder / "rankmill.toml").write_text('[job]\nmodel = "demo"\nreuse_from = "latest"')
    latest = profile.current()
    assert latest is not None
    assert latest.options == {"model_id": "demo", "reuse_from": "latest"}


def test_those_of_a_file_of_schedules(folder: Path) -> None:
    (folder / "schedules.toml").write_text(SCHEDULES)
    night, latest = read_file("../../schedules.toml")
    assert night.job.input_uri == f"{folder}/in/dt={{date}},{{latest:{folder}/more/dt=*}}/x"
    assert (night.output_uri, night.qrels) == (f"{folder}/out", f"{folder}/judgments.qrels")
    assert night.job.model_id == f"{folder}/mine"
    assert night.job.reuse_from == f"{folder}/scored/monday"
    assert (latest.job.input_uri, latest.output_uri) == ("/in", "s3://bucket/out")
    assert (latest.job.model_id, latest.job.reuse_from) == ("demo", "latest")
