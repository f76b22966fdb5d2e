"""A wrong value is one line: the typed name, the value, what is allowed, no password."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from producer.jobs.submit import submit
from rankmill.errors import InputError
from rankmill.settings import Settings, settings


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("THREADS", "x", "RANKMILL_THREADS: 'x' should be a valid integer"),
        ("THREADS", "", "RANKMILL_THREADS: '' should be a valid integer"),
        ("THREADS", "-1", "RANKMILL_THREADS: '-1' should be greater than or equal to 0"),
        ("CLAIM_S", "inf", "RANKMILL_CLAIM_S: 'inf' should be a finite number"),
        ("CLAIM_S", "0", "RANKMILL_CLAIM_S: '0' should be greater than 0"),
        # The health check reads records that are written every 2 s.
        ("STALL_S", "9", "RANKMILL_STALL_S: '9' should be greater than or equal to 10"),
        ("METRICS_PORT", "65536", "RANKMILL_METRICS_PORT: '65536' should be less than or"),
        ("LOG_LEVEL", "debug", "RANKMILL_LOG_LEVEL: 'debug' should be 'DEBUG', 'INFO', 'WARNING'"),
        ("PREPARE_MEMORY", "lots", "RANKMILL_PREPARE_MEMORY: 'lots' is not an amount of memory"),
        ("PREPARE_MEMORY", "0GB", "RANKMILL_PREPARE_MEMORY: '0GB' is not an amount of memory"),
        ("ALLOWED_PREFIXES", "data", "RANKMILL_ALLOWED_PREFIXES: data is neither an absolute"),
        ("DEVICE", "gpu", "RANKMILL_DEVICE: 'gpu' is not a device; give auto, cpu"),
    ],
)
def test_a_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str
) -> None:
    monkeypatch.setenv(f"RANKMILL_{variable}", value)
    with pytest.raises(InputError) as caught:
        settings()
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER_URL", "http://:hidden@h"),
        ("BROKER_URL", "redis://:hid:den@h:x/0"),
        ("WEBHOOK_URL", "https://user:hidden@h"),
        ("WEBHOOK_SECRET", "hidden"),
    ],
)
def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(f"RANKMILL_{variable}", value)
    with pytest.raises(InputError) as caught:
        settings()
    line = str(caught.value)
    assert line.startswith(f"RANKMILL_{variable}: ") and "hid" not in line and "\n" not in line


def test_no_error_of_a_setting_has_pydantics_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        variable = f"RANKMILL_{name.upper()}"
        monkeypatch.setenv(variable, "-1")
        settings.cache_clear()
        try:
            settings()
        except InputError as error:
            assert str(error).startswith(f"{variable}: "), error
            assert "Input" not in str(error) and "alue error" not in str(error)
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_celerys_own_commands_show_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_THREADS", "x")
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", command], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "rankmill: RANKMILL_THREADS: 'x' should be a valid integer\n"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"topk": 5}, "submit: unknown option topk; did you mean top_k?"),
        ({"top_k": "five"}, "submit: top_k 'five' should be a valid integer"),
        ({"top_k": 0}, "submit: top_k 0 should be greater than or equal to 1"),
        ({"precision": "fp15"}, "submit: precision 'fp15' should be 'auto', 'fp32'"),
        ({"keep_cols": "doc_id"}, "submit: keep_cols 'doc_id' should be a valid tuple"),
        ({"queries": ["s3://u:hidden@h"]}, "submit: queries should be a valid string"),
    ],
)
def test_an_option_of_python_is_named_with_its_value(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        submit("in.parquet", "out", **options)
    assert str(caught.value).startswith(line)
