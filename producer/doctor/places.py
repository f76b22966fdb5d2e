"""Check where jobs read and write: reachable, writable, with puts that never overwrite."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

from rich.filesize import decimal

from producer.doctor.finding import Finding, ok, problem, warning
from rankmill import storage
from rankmill.errors import InputError, NoConditionalPuts, RankmillError, StorageRefused
from rankmill.settings import Settings

_LITTLE_SCRATCH_BYTES = 5 * 10**9


def check_places(settings: Settings) -> Iterator[Finding]:
    """Check each allowed prefix and the scratch folder."""
    if settings.allowed_prefixes is None:
        yield ok("prefixes", "jobs may use any place; RANKMILL_ALLOWED_PREFIXES limits it")
    for prefix in settings.allowed_prefixes or ():
        yield _prefix(prefix)
    yield _scratch(settings)


def _prefix(prefix: str) -> Finding:
    name = f"prefix {prefix}"
    try:
        storage.names(prefix)
    except (RankmillError, InputError) as error:
        return problem(name, str(error), "mount it, or correct the credentials or the endpoint")
    try:
        storage.check_conditional_puts(prefix)
    except NoConditionalPuts as error:
        return problem(name, str(error), "no job can write there")
    except StorageRefused as error:
        return warning(name, f"read-only ({error})", "write outputs elsewhere")
    except RankmillError as error:
        return problem(name, str(error), "try again, or check the store")
    return ok(name, "can be read and written")


def _scratch(settings: Settings) -> Finding:
    folder = settings.scratch or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        fix = "set RANKMILL_SCRATCH to a folder on local disk"
        return problem("scratch", f"{folder}: {error.strerror}", fix)
    message = f"{folder} has {decimal(free)} free"
    if free < _LITTLE_SCRATCH_BYTES:
        return warning("scratch", message, "make room, or name another with RANKMILL_SCRATCH")
    return ok("scratch", message)
