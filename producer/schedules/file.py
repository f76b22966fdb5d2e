"""Read schedules from a TOML file, so that they can be kept in git.

[schedule.nightly]
cron = "15 2 * * *"
tz = "Europe/Berlin"
input = "s3://bucket/pairs/dt={date}"
output = "s3://bucket/scored"
model = "BAAI/bge-reranker-v2-m3"
top_k = 10

A relative path is relative to the file. Besides `input` and `output`, a key is a field of
ScheduleSpec or a flag of `rankmill submit` with `_` for `-`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from producer.reuse.earlier import LATEST
from producer.schedules import templates
from producer.schedules.spec import ScheduleSpec
from rankmill import storage
from rankmill.contract.base import parse_given
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError
from rankmill.models.names import absolute_model

_OWN = set(ScheduleSpec.model_fields) - {"version", "minor", "name", "job", "output_uri"}
_KEYS = {
    **{"input_uri": "input", "output_uri": "output"},
    **{"model_id": "model", "model_revision": "revision"},
}
_JOB = {_KEYS.get(n, n): n for n in JobOptions.model_fields if n not in ("version", "minor")}


def read_file(path: str) -> list[ScheduleSpec]:
    """Return all schedules of a file.

    Raises:
        InputError: the file, a schedule or a key is wrong; the message names it.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"{path}: {why}") from error
    tables = content.pop("schedule", {})
    wrong = next(iter(content), None)
    if wrong is not None or not isinstance(tables, dict) or not tables:
        unknown = f"unknown key '{wrong}'; " if wrong else ""
        raise InputError(f"{path}: {unknown}write tables [schedule.NAME]")
    return [_spec(name, values, path) for name, values in tables.items()]


def _spec(name: str, values: Any, path: str) -> ScheduleSpec:
    where = f"{path}: schedule.{name}"
    if not isinstance(values, dict):
        raise InputError(f"{where} is not a table; write [schedule.{name}]")
    for given in values:
        if given not in _OWN | set(_JOB) | {"output"}:
            near = get_close_matches(given, [*_OWN, *_JOB, "output"], 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"{where}: unknown key '{given}'{meant}")
    missing = [needed for needed in ("cron", "input", "output") if needed not in values]
    if missing:
        raise InputError(f"{where}: '{missing[0]}' is missing")
    job = {_JOB[given]: value for given, value in values.items() if given in _JOB}
    own = {given: value for given, value in values.items() if given in _OWN}
    options = parse_given(JobOptions, job, where, key)
    folder = Path(path).absolute().parent
    return schedule_spec(name, options, values["output"], own, where, key, folder)


def key(field: str) -> str:
    """Return the key in the file for a field."""
    return _KEYS.get(field, field)


def schedule_spec(
    name: str,
    job: JobOptions,
    output_uri: str,
    own: dict[str, Any],
    where: str,
    named: Callable[[str], str] = key,
    folder: Path = Path(),
) -> ScheduleSpec:
    """Make a schedule whose paths mean the same to every worker.

    Args:
        name: of the schedule.
        job: the options of its jobs.
        output_uri: the folder for its runs, which may be a template.
        own: the schedule's other fields.
        where: names the source in error messages.
        named: maps a field to the key or the flag that a user types.
        folder: that of relative paths.

    Raises:
        InputError: a field is wrong; the message names `where` and the field.
    """
    values = {"name": name, "job": job, "output_uri": output_uri, **own}
    spec = parse_given(ScheduleSpec, values, where, named)
    paths = {
        field: templates.absolute(text, folder)
        for field in ("input_uri", "queries", "corpus")
        if (text := getattr(job, field)) is not None
    }
    paths["model_id"] = absolute_model(job.model_id, folder)
    if job.reuse_from not in (None, LATEST):
        paths["reuse_from"] = storage.absolute(storage.from_folder(folder, job.reuse_from))
    return spec.model_copy(
        update={
            "job": job.model_copy(update=paths),
            "output_uri": templates.absolute(spec.output_uri, folder),
            "qrels": spec.qrels and storage.absolute(storage.from_folder(folder, spec.qrels)),
        }
    )
