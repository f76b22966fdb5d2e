"""All that a cluster or a single machine needs, looked at from here."""

from __future__ import annotations

from producer.doctor.broker import look_at_redis
from producer.doctor.finding import Finding, ok, problem, warning
from producer.doctor.machine import look_at_machine
from producer.doctor.model import look_at_models
from producer.doctor.places import look_at_places
from producer.doctor.schedules import look_at_schedules
from rankmill.errors import InputError
from rankmill.settings import settings, unknown_variables


def examine() -> list[Finding]:
    """Writes nothing but a small object under each allowed prefix, which it removes."""
    try:
        found = settings()
    except InputError as error:
        return [problem("settings", str(error), "set that variable right, or unset it")]
    n_set = len(found.model_fields_set)
    return [
        ok("settings", f"{n_set} set, the others as they are by default"),
        *(warning("settings", line, "rename or unset it") for line in unknown_variables()),
        *look_at_machine(found),
        *look_at_redis(found),
        *look_at_schedules(found),
        *look_at_places(found),
        *look_at_models(found),
    ]
