"""Profiles: defaults of a `rankmill.toml` for job options and settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from producer import profile
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from rankmill.output.output import Output
from tests.support.command import called, rankmill
from tests.support.inputs import pairs, write

TEXT = """
[job]
model = "null"
top-k = 2
keep_cols = ["doc_id", "query"]

[settings]
broker_url = "{broker}"
allowed_prefixes = ["{folder}"]
shards_per_worker = 7
s3_unsigned = true

[profiles.night.job]
top_k = 5
[profiles.night.settings]
shards_per_worker = 9
"""


@pytest.fixture
def folder(tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder below one with a profile, whose broker is the tests' Redis."""
    monkeypatch.delenv("RANKMILL_BROKER_URL")
    text = TEXT.format(broker=broker_url, folder=tmp_path)
    (tmp_path / "rankmill.toml").write_text(text)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return below


def spec_of(output: Path) -> JobSpec:
    record = Output(str(output)).read_job()
    assert record is not None
    return record.spec


def test_flags_override_variables_and_variables_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pairs(2, 3), folder / "in.parquet")
    monkeypatch.setenv("RANKMILL_SHARDS_PER_WORKER", "3")
    done = called("submit", "in.parquet", "out", "--keep-cols", "doc_id", folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"defaults from {folder.parents[1]}/rankmill.toml: model, top_k, keep_cols" in (
        done.stderr.replace("\n", " ")
    )
    spec = spec_of(folder / "out")
    assert (spec.model_id, spec.top_k, spec.keep_cols) == ("null", 2, ("doc_id",))
    done = called(*("submit", "--profile", "night", "in.parquet", "o2"))
    assert done.returncode == 0 and spec_of(folder / "o2").top_k == 5, done.stderr

    found = {
        each["name"]: each["message"] for each in json.loads(rankmill("doctor", "--json").stdout)
    }
    assert found["RANKMILL_SHARDS_PER_WORKER"] == "3 (from the environment)"
    assert found["RANKMILL_S3_UNSIGNED"] == "True (from rankmill.toml)"
    assert found["RANKMILL_ALLOWED_PREFIXES"] == f"{folder.parents[1]} (from rankmill.toml)"
    assert "model = null; top_k = 2" in found["profile"]


def test_no_secret_is_shown(folder: Path) -> None:
    (folder / "rankmill.toml").write_text(
        '[settings]\nbroker_url = "redis://:s3cret-pass@127.0.0.1:9/0"\n'
        'flower_basic_auth = "me:password-of-flower"\n'
    )
    shown = rankmill("doctor").stdout + rankmill("doctor", "--json").stdout
    assert "RANKMILL_FLOWER_BASIC_AUTH" in shown and "***" in shown
    assert "s3cret" not in shown and "password-of" not in shown


def test_a_named_profile_is_added_and_a_file_can_be_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = profile.current()
    assert found is not None and found.options["top_k"] == 2
    monkeypatch.setenv("RANKMILL_PROFILE", "night")
    night = profile.current()
    assert night is not None and night.options["top_k"] == 5
    assert night.variables["RANKMILL_SHARDS_PER_WORKER"] == "9"
    (folder / "other.toml").write_text('[job]\nmodel = "./mine"\nchat_template = "t.jinja"\n')
    monkeypatch.setenv("RANKMILL_PROFILE", "./other.toml")
    other = profile.current()
    assert other is not None and other.options == {
        "model_id": str(folder / "mine"),
        "chat_template": str(folder / "t.jinja"),
    }
    for name in night.variables:  # both, so that what `use` sets does not outlive the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RANKMILL_SHARDS_PER_WORKER", "1")
    night.use()
    assert os.environ["RANKMILL_SHARDS_PER_WORKER"] == "1"
    assert not night.gave("RANKMILL_SHARDS_PER_WORKER") and night.gave("RANKMILL_S3_UNSIGNED")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[jobs]", "unknown key jobs; did you mean job?"),
        ("[job]\nmodle = 'x'", "unknown key job.modle; did you mean model?"),
        ("[job]\ninput_uri = 'x'", "unknown key job.input_uri"),
        ("[job]\ntop_k = 0", r"rankmill.toml: \[job\]: top_k 0 should be greater"),
        ("[job]\nprecision = 'fp99'", r"\[job\]: precision 'fp99' should be"),
        (
            "[settings]\nbroker_ulr = 'x'",
            "unknown key settings.broker_ulr; did you mean broker_url",
        ),
        ("[settings]\nthreads = 'many'", r"rankmill.toml: \[settings\] threads 'many' should be"),
        ("[settings]\nbroker_url = 'http://:pw1@h'", r"\[settings\] broker_url must be redis://"),
        ("[settings]\nremote_code_models = ['a/b']", "not for a file: set RANKMILL_REMOTE_CODE"),
        ("[profiles.a.jobb]", "unknown key profiles.a.jobb; did you mean job?"),
        ("job = 3", r"job is not a table: write \[job\]"),
        ("[job", "rankmill.toml: Expected"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_and_key(
    text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rankmill.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=line) as refused:
        profile.current()
    assert "pw1" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("nigth", r"has no \[profiles.nigth\]; did you mean night\?"),
        ("./none.toml", "none.toml: No such file"),
    ],
)
def test_a_profile_that_is_not_there_is_one_line(
    wanted: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_PROFILE", wanted)
    with pytest.raises(InputError, match=line):
        profile.current()
    (folder.parents[1] / "rankmill.toml").unlink()
    monkeypatch.setenv("RANKMILL_PROFILE", "night")
    with pytest.raises(InputError, match=r"--profile night: there is no rankmill.toml in .* above"):
        profile.current()
