"""Place a job's control folder: PARENT/_rankmill/NAME for the output PARENT/NAME.

It is next to the output and not in it, because Polars, DuckDB and Hugging Face datasets read every
file below a folder, hidden or not. Version 0.1 had it in the output.
"""

from __future__ import annotations

from rankmill import storage
from rankmill.errors import InputError, NoConditionalPuts, NotAllowed, StorageRefused


def beside(output_uri: str) -> str:
    """Return the control folder of an output; every name of one output leads to the same folder.

    What has nothing next to it, a bucket or the root folder, has it where 0.1 had it.
    """
    folder, _, name = storage.resolved(output_uri).rpartition("/")
    is_top = not name or folder == "s3:/"
    # Not by storage.child: `s3://bucket/a//out` is another output than `s3://bucket/a/out`.
    return inside(output_uri) if is_top else f"{folder}/{storage.CONTROL_FOLDER}/{name}"


def usable(output_uri: str) -> str:
    """Return `beside`, or where 0.1 had it if that alone is in RANKMILL_ALLOWED_PREFIXES."""
    place = beside(output_uri)
    try:
        storage.absolute(place)
    except NotAllowed:
        return inside(output_uri)
    return place


def inside(output_uri: str) -> str:
    """Return the control folder that an output of 0.1 has."""
    return storage.child(output_uri, storage.CONTROL_FOLDER)


def check_place(output_uri: str) -> None:
    """Refuse an output without a place next to it; nothing is written.

    Raises:
        InputError: it is a bucket, the root folder, or in a control folder.
        NotAllowed: its control folder is outside of RANKMILL_ALLOWED_PREFIXES.
    """
    names = storage.resolved(output_uri).split("/")
    if any(name.lower() == storage.CONTROL_FOLDER for name in names):
        raise InputError(
            f"{output_uri}: folders called {storage.CONTROL_FOLDER} are for control files; "
            "give another output"
        )
    place = beside(output_uri)
    if place == inside(output_uri) or names[-1] in (".", ".."):
        raise InputError(
            f"{output_uri} has nothing next to it, where control files go; give a folder below it"
        )
    try:
        storage.absolute(place)
    except NotAllowed as error:
        raise NotAllowed(_with_advice(error, output_uri)) from error


def check_writable(output_uri: str, control_uri: str) -> None:
    """Refuse an output that cannot be written to; what is there stays as it is.

    Raises:
        StorageRefused: it, or its control folder, cannot be written to.
        NoConditionalPuts: two writers of a report would both win.
    """
    storage.check_conditional_puts(output_uri)
    try:
        if control_uri == beside(output_uri):
            storage.make_shared(control_uri.rpartition("/")[0])
        storage.check_conditional_puts(control_uri)
    except NoConditionalPuts:
        raise
    except StorageRefused as error:
        raise StorageRefused(_with_advice(error, output_uri)) from error


def _with_advice(error: StorageRefused, output_uri: str) -> str:
    return f"{error}; control files go there, next to OUTPUT: give a folder below {output_uri}"
