"""Decide how a job ends: the first process that notes an end wins, and no later end replaces it.

The decision is one file, `end.json`, which is written once. It holds the file of that end, so that
any process can finish the end that another one noted before it died.
"""

from __future__ import annotations

from typing import get_args

from rankmill import storage
from rankmill.contract.base import parse
from rankmill.contract.results import End, EndFile
from rankmill.output.uris import END_NAME, OutputUris


def decide(uris: OutputUris, file: EndFile, content: bytes = b"") -> bool:
    """End a job with one of its three last files; return False if it had another end before."""
    for each in get_args(EndFile):
        if storage.exists(_place(uris, each)):
            return bool(each == file)
    end = End(file=file, content=content.decode())
    while not storage.write_bytes_once(uris.control_file(END_NAME), end.to_json()):
        noted = _read(uris)
        if noted is not None:  # else the job was started again just now
            end = noted
            break
    _finish(uris, end)
    return end.file == file


def finish(uris: OutputUris) -> bool:
    """Write the last file of a job whose end was noted; return False if none was."""
    end = _read(uris)
    if end is not None:
        _finish(uris, end)
    return end is not None


def _finish(uris: OutputUris, end: End) -> None:
    storage.write_bytes_once(_place(uris, end.file), end.content.encode())


def _place(uris: OutputUris, file: EndFile) -> str:
    return uris.success_uri if file == "_SUCCESS" else uris.control_file(file)


def _read(uris: OutputUris) -> End | None:
    place = uris.control_file(END_NAME)
    content = storage.read_bytes(place)
    return None if content is None else parse(End, content, place)
