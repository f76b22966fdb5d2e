"""Schedules as a TOML file says them, so that they can be kept in git.

[schedule.nightly]
cron = "15 2 * * *"
tz = "Europe/Berlin"
input = "s3://bucket/pairs/dt={date}"
output = "s3://bucket/scored"
model = "BAAI/bge-reranker-v2-m3"
top_k = 10

Beside `input` and `output`, a key is a field of ScheduleSpec or a flag of `rankmill submit` with
`_` for `-`.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from producer.schedules import templates
from producer.schedules.spec import ScheduleSpec
from rankmill import storage
from rankmill.contract import parse
from rankmill.errors import InputError
from rankmill.spec import JobOptions

_OWN = set(ScheduleSpec.model_fields) - {"version", "name", "job", "output_uri"}
_NAMED_OTHERWISE = {"input_uri": "input", "model_id": "model", "model_revision": "revision"}
_JOB = {_NAMED_OTHERWISE.get(n, n): n for n in JobOptions.model_fields if n != "version"}


def read_file(path: str) -> list[ScheduleSpec]:
    """All schedules of a file.

    Raises:
        InputError: naming the file, the schedule and the key that is wrong.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"{path}: {why}") from error
    tables = content.pop("schedule", {})
    wrong = next(iter(content), None)
    if wrong is not None or not isinstance(tables, dict) or not tables:
        said = f"'{wrong}' means nothing here; " if wrong else ""
        raise InputError(f"{path}: {said}it takes tables [schedule.NAME]")
    return [_spec(name, values, path) for name, values in tables.items()]


def _spec(name: str, values: Any, path: str) -> ScheduleSpec:
    where = f"{path}: schedule.{name}"
    if not isinstance(values, dict):
        raise InputError(f"{where} is no table; write [schedule.{name}]")
    for key in values:
        if key not in _OWN | set(_JOB) | {"output"}:
            near = get_close_matches(key, [*_OWN, *_JOB, "output"], 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"{where}: unknown key '{key}'{meant}")
    missing = [key for key in ("cron", "input", "output") if key not in values]
    if missing:
        raise InputError(f"{where}: '{missing[0]}' is missing")
    job = {_JOB[key]: value for key, value in values.items() if key in _JOB}
    own = {key: value for key, value in values.items() if key in _OWN}
    return schedule_spec(name, parse(JobOptions, job, where), values["output"], own, where)


def schedule_spec(
    name: str, job: JobOptions, output_uri: str, own: dict[str, Any], where: str
) -> ScheduleSpec:
    """A schedule whose paths mean the same to every worker; `own` are its further fields.

    Raises:
        InputError: naming `where` and the field that is wrong.
    """
    spec = parse(ScheduleSpec, {"name": name, "job": job, "output_uri": output_uri, **own}, where)
    paths = {
        field: templates.absolute(text)
        for field in ("input_uri", "queries", "corpus")
        if (text := getattr(job, field)) is not None
    }
    return spec.model_copy(
        update={
            "job": job.model_copy(update=paths),
            "output_uri": templates.absolute(spec.output_uri),
            "qrels": spec.qrels and storage.absolute(spec.qrels),
        }
    )
