"""Remove or reopen what a job has left in its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rankmill import storage
from rankmill.output.output import Output
from rankmill.output.uris import END_NAME, JOB_NAME, PART_NAME, RUNS_NAME, part_name

_END_NAMES = ("manifest.json", "times.json", "failure.json", "cancelled.json", "report.html")


def reopen(output: Output) -> None:
    """Remove the files that say how the job ended, and the reports of shards without a part."""
    _forget_end(output)
    for name in _END_NAMES:
        storage.remove(output.control_file(name))
    reported = output.reported_shards()
    parts = output.part_names() if reported else set()
    for shard_index in reported:
        if part_name(shard_index) not in parts:
            output.forget_shard(shard_index)


@contextmanager
def restored_on_error(output: Output, shards: Iterable[int] = ()) -> Iterator[None]:
    """Restore the files about the job's end, and these shards' reports, if the block fails."""
    places = [
        output.control_file(END_NAME),
        output.success_uri,
        *(output.control_file(name) for name in _END_NAMES),
        *(output.shard_report_uri(shard_index) for shard_index in shards),
    ]
    before = {place: storage.read_bytes(place) for place in places}
    try:
        yield
    except BaseException:
        # `_SUCCESS` and the note of the end last, as when the job ended.
        for place in reversed(places):
            content = before[place]
            if content is not None:
                storage.write_bytes_once(place, content)
        raise


def foreign_names(output: Output) -> list[str]:
    """Return the names in the output that no job wrote; without a job, parts too are foreign."""
    has_job = output.read_job() is not None
    return [name for name in storage.names(output.uri) if not _is_own(output, name, has_job)]


def remove_result(output: Output) -> None:
    """Remove all files of an earlier job.

    `_SUCCESS` goes first, and the reports before the parts. `job.json`, which says whose the parts
    are, goes last: a removal that dies half way can be continued.
    """
    _forget_end(output)
    storage.remove(output.control_file("shards"))
    own = [name for name in storage.names(output.uri) if _is_own(output, name, has_job=True)]
    for name in own:
        if name != storage.CONTROL_FOLDER:
            storage.remove(storage.child(output.uri, name))
    folders = {output.new_control_uri}
    if storage.CONTROL_FOLDER in own:
        folders.add(output.old_control_uri)
    for folder in folders:
        for name in sorted(storage.names(folder), key=lambda name: name == JOB_NAME):
            if name != RUNS_NAME:  # it may be of this process
                storage.remove(storage.child(folder, name))
        if not storage.names(folder):
            storage.remove(folder)
    storage.remove_empty_folder(output.new_control_uri.rpartition("/")[0])
    output.forget_control_uri()


def remove_strays(output: Output, n_shards: int, with_rejects: Iterable[int]) -> None:
    """Remove what earlier runs of shards have left, and unfinished files.

    Args:
        output: the job's output.
        n_shards: the number of the plan's shards; parts beyond them go.
        with_rejects: the shards with rejects; the rejects of others go.
    """
    for name in output.part_names() - {part_name(n) for n in range(n_shards)}:
        storage.remove(storage.child(output.uri, name))
    rejected = storage.names(output.control_file("rejected"))
    for name in {*rejected} - {part_name(n) for n in with_rejects}:
        storage.remove(output.control_file("rejected", name))
    for folder in (output.uri, output.control_uri):
        storage.remove_unfinished(folder)


def forget_summary(output: Output) -> None:
    """Remove what a finalization wrote before the job had another end."""
    for name in ("manifest.json", "times.json"):
        storage.remove(output.control_file(name))


def _forget_end(output: Output) -> None:
    """Remove `_SUCCESS`, and first the note by which any process would write it again."""
    storage.remove(output.control_file(END_NAME))
    storage.remove(output.success_uri)


def _is_own(output: Output, name: str, has_job: bool) -> bool:
    """Return whether a job wrote the file or folder of this name in its output."""
    # Of version 0.1. The control folder of outputs inside this one is foreign.
    if name == storage.CONTROL_FOLDER:
        inside = storage.names(output.old_control_uri)
        return not inside or JOB_NAME in inside
    is_result = name == "_SUCCESS" or PART_NAME.fullmatch(name) is not None
    return storage.is_temporary(name) or (has_job and is_result)
