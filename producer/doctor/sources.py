"""Show where each setting and each default of a job option comes from."""

from __future__ import annotations

from collections.abc import Iterator

from producer import profile
from producer.doctor.finding import Finding, ok, problem
from rankmill.errors import InputError
from rankmill.settings import Settings, variable
from rankmill.shown import masked


def check_sources(settings: Settings) -> Iterator[Finding]:
    """Show the profile, and each setting that is not as it is by default; no secret."""
    try:
        used = profile.current()
    except InputError as error:
        yield problem("profile", str(error), "correct that file, or name another with --profile")
        used = None
    if used is not None:
        defaults = (f"{profile.key_of(name)} = {value}" for name, value in used.options.items())
        yield ok("profile", "; ".join([str(used.path), *defaults]))
    n_set = len(settings.model_fields_set)
    yield ok("settings", f"{n_set} set, the others have their defaults")
    for name in sorted(settings.model_fields_set):
        in_file = used is not None and used.gave(variable(name))
        source = used.path.name if used is not None and in_file else "the environment"
        yield ok(variable(name), f"{_shown(settings, name)} (from {source})")


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    return masked(",".join(value) if isinstance(value, tuple) else str(value))
