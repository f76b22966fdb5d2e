"""Run every check of this machine and its cluster."""

from __future__ import annotations

import re
from pathlib import Path

from producer.doctor.broker import check_redis
from producer.doctor.finding import Finding, problem, warning
from producer.doctor.machine import check_machine
from producer.doctor.model import check_models
from producer.doctor.places import check_places
from producer.doctor.schedules import check_schedules
from producer.doctor.sources import check_sources
from rankmill.errors import InputError
from rankmill.settings import settings, unknown_variables


def examine() -> list[Finding]:
    """Return the findings of all checks.

    The only thing written is a small object under each allowed prefix, which is removed again.
    """
    try:
        found = settings()
    except InputError as error:
        return [problem("settings", str(error), "correct that variable, or unset it")]
    return [
        *check_sources(found),
        *(warning("settings", line, "rename or unset it") for line in unknown_variables()),
        *_check_env_file(),
        *check_machine(found),
        *check_redis(found),
        *check_schedules(found),
        *check_places(found),
        *check_models(found),
    ]


def _check_env_file() -> list[Finding]:
    """Check `.env` of this folder, which Compose reads: its containers do not see other names."""
    try:
        content = Path(".env").read_text(errors="replace")
    except OSError:
        return []
    names = re.findall(r"^\s*(?:export\s+)?(RANKMILL_\w+)\s*=", content, re.MULTILINE)
    return [warning(".env", line, "rename it there") for line in unknown_variables(set(names))]
