"""A misspelt RANKMILL_ variable is reported with a suggestion."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from producer.doctor.examine import examine
from rankmill.settings import CHECKOUT, Settings, unknown_variables


def test_misspelt_variables_are_named_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"RANKMILL_{name.upper()}", "x")
    for name in ("RANKMILL_DATA", "RANKMILL_VERSION", "RANKMILL_TEST_MARK", "OTHER_THREADS"):
        monkeypatch.setenv(name, "x")
    assert unknown_variables() == []
    monkeypatch.setenv("RANKMILL_THREDS", "4")
    monkeypatch.setenv("RANKMILL_ZZZZZZZZ", "4")
    misspelt, other = unknown_variables()
    assert misspelt.startswith("RANKMILL_THREDS") and "did you mean RANKMILL_THREADS?" in misspelt
    assert "no effect" in other and "4" not in other


def test_every_command_warns_and_a_wrong_url_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_ULR", "redis://h")
    monkeypatch.setenv("RANKMILL_BROKER_URL", "http://:s3cret@h")
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", "jobs"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "did you mean RANKMILL_BROKER_URL?" in done.stderr
    assert (
        "RANKMILL_BROKER_URL: must be redis://HOST" in done.stderr and "s3cret" not in done.stderr
    )


def test_doctor_reads_the_env_file_of_compose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CHECKOUT / ".env.example", ".env")
    assert [each for each in examine() if each.name == ".env"] == []
    Path(".env").write_text("# RANKMILL_X=1\nRANKMILL_THREAD=4\n export RANKMILL_DATA=/d\n")
    [found] = [each for each in examine() if each.name == ".env"]
    assert "RANKMILL_THREAD is not" in found.message
    assert "did you mean RANKMILL_THREADS?" in found.message
