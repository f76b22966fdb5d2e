"""Place a job's control folder: PARENT/_rankmill/NAME for the output PARENT/NAME.

It is next to the output because Polars, DuckDB and Hugging Face datasets read every file below a
folder, hidden or not. Version 0.1 had it in the output.
"""

from __future__ import annotations

from rankmill import storage
from rankmill.errors import InputError, NoConditionalPuts, NotAllowed, StorageRefused


def next_to(output_uri: str) -> str:
    """Return an output's control folder; all names of one output give the same folder.

    A bucket and the root folder have nothing next to them: their control folder is inside.
    """
    folder, _, name = storage.resolved(output_uri).rpartition("/")
    is_top = not name or folder == "s3:/"
    # Not by storage.child: `s3://bucket/a//out` is another output than `s3://bucket/a/out`.
    return inside(output_uri) if is_top else f"{folder}/{storage.CONTROL_FOLDER}/{name}"


def usable(output_uri: str) -> str:
    """Return `next_to`, or `inside` if RANKMILL_ALLOWED_PREFIXES allows only that."""
    place = next_to(output_uri)
    try:
        storage.absolute(place)
    except NotAllowed:
        return inside(output_uri)
    return place


def inside(output_uri: str) -> str:
    """Return the control folder of an output of version 0.1."""
    return storage.child(output_uri, storage.CONTROL_FOLDER)


def check_output_place(output_uri: str) -> None:
    """Check that an output can have a control folder next to it; write nothing.

    Raises:
        InputError: the output is a bucket, the root folder, or in a control folder.
        NotAllowed: the control folder is outside of RANKMILL_ALLOWED_PREFIXES.
    """
    names = storage.resolved(output_uri).split("/")
    if any(name.lower() == storage.CONTROL_FOLDER for name in names):
        raise InputError(
            f"{output_uri}: folders called {storage.CONTROL_FOLDER} are for control files; "
            "give another output"
        )
    place = next_to(output_uri)
    if place == inside(output_uri) or names[-1] in (".", ".."):
        raise InputError(
            f"{output_uri} has nothing next to it, but control files go there; "
            "give a folder below it"
        )
    try:
        storage.absolute(place)
    except NotAllowed as error:
        raise NotAllowed(_with_advice(error, output_uri)) from error


def check_writable(output_uri: str, control_uri: str) -> None:
    """Check that an output and its control folder can be written; change nothing there.

    Raises:
        StorageRefused: one of them cannot be written.
        NoConditionalPuts: of two writers of a report, both would win.
    """
    storage.check_conditional_puts(output_uri)
    try:
        if control_uri == next_to(output_uri):
            storage.make_shared(control_uri.rpartition("/")[0])
        storage.check_conditional_puts(control_uri)
    except NoConditionalPuts:
        raise
    except StorageRefused as error:
        raise StorageRefused(_with_advice(error, output_uri)) from error


def _with_advice(error: StorageRefused, output_uri: str) -> str:
    return f"{error}; control files go there, next to OUTPUT: give a folder below {output_uri}"
