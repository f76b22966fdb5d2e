"""The folders of a schedule's runs, and `latest.json` next to them.

OUTPUT/2026-11-21T02-15/     a job's output; its control folder holds firing.json (which due time)
                             and drift.json (difference from the run before)
OUTPUT/latest.json           the newest run that succeeded; never moves back
"""

from __future__ import annotations

import re
from datetime import datetime

from producer.schedules import templates
from producer.schedules.due import zone_named
from producer.schedules.spec import Firing, Latest, ScheduleSpec
from rankmill import storage
from rankmill.contract.base import parse
from rankmill.contract.job import JobSpec
from rankmill.output.output import Output

_LATEST = "latest.json"
_RUN = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d.*")
_READ_BACK = 100


def job_spec(spec: ScheduleSpec, due: datetime) -> JobSpec:
    """Return the job of a due time: templates filled in, with an output folder of its own.

    Raises:
        InputError: {latest:…} matches nothing.
    """
    local = due.astimezone(zone_named(spec.tz))
    options = spec.job.model_dump(exclude_unset=True)
    for name in ("input_uri", "queries", "corpus"):
        if options.get(name) is not None:
            options[name] = templates.rendered(options[name], local)
    output = storage.child(templates.rendered(spec.output_uri, local), run_name(local))
    return JobSpec(**options, output_uri=output)


def run_name(local: datetime) -> str:
    """Name a run's folder by the local time; a time that the clock repeats gets `-again`."""
    seconds = f"-{local:%S}" if local.second else ""
    return f"{local:%Y-%m-%dT%H-%M}{seconds}{'-again' if local.fold else ''}"


def read_latest(spec: ScheduleSpec) -> Latest | None:
    """Return what `latest.json` names, or None before the first success."""
    place = _latest_uri(spec)
    content = storage.read_bytes(place)
    return None if content is None else parse(Latest, content, place)


def publish_latest(spec: ScheduleSpec, firing: Firing, now: datetime) -> None:
    """Point `latest` at a run that succeeded, unless it names a later one."""
    assert firing.output_uri is not None
    before = read_latest(spec)
    if before is not None and before.due >= firing.due:
        return
    latest = Latest(
        schedule=spec.name,
        due=firing.due,
        job_id=firing.job_id,
        output_uri=firing.output_uri,
        fingerprint=firing.fingerprint,
        published_at=now,
    )
    storage.write_bytes(_latest_uri(spec), latest.to_json())


def keep_record(firing: Firing) -> None:
    """Write the firing into its run's folder, so that it survives the loss of Redis."""
    if firing.output_uri is not None:
        storage.write_bytes(_record_uri(firing.output_uri), firing.to_json())


def recorded(spec: ScheduleSpec) -> list[Firing]:
    """Return the newest runs of a schedule from their folders alone, in order of due time."""
    home = templates.fixed_folder(spec.output_uri)
    # On S3 a run without a part yet has no folder but its control folder.
    folders = (home, storage.child(home, storage.CONTROL_FOLDER))
    listed = {name for folder in folders for name in storage.names(folder)}
    names = sorted(name for name in listed if _RUN.fullmatch(name))
    places = [_record_uri(storage.child(home, name)) for name in names[-_READ_BACK:]]
    contents = [(place, storage.read_bytes(place)) for place in places]
    found = [parse(Firing, content, place) for place, content in contents if content is not None]
    ours = (firing for firing in found if firing.schedule == spec.name)
    return sorted(ours, key=lambda firing: firing.due)


def _latest_uri(spec: ScheduleSpec) -> str:
    return storage.child(templates.fixed_folder(spec.output_uri), _LATEST)


def _record_uri(output_uri: str) -> str:
    return storage.child(Output(output_uri).control_uri, "firing.json")
