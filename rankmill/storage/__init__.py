"""Files on disk or S3 by the same calls; a published file is whole or not there.

A place is a path, `file://…`, `s3://bucket/key` or, to be read only, `hf://datasets/…`. Every
function raises

    StorageRefused       disk full, read-only, access denied, no such bucket
    NotAllowed           a StorageRefused: outside of RANKMILL_ALLOWED_PREFIXES
    StorageUnavailable   time-out, throttling, connection lost: worth a retry

The parts: `naming` (absolute, child …), `listing` (folders and globs), `content` (read, publish,
remove), `stores` (which one serves a place), `protocol` (the methods of a store), `local`, `s3`,
`datasets_hub`.
"""

from __future__ import annotations

from rankmill.storage.content import (
    check_conditional_puts,
    exists,
    make_shared,
    names,
    open_file,
    publish,
    read_bytes,
    remove,
    remove_empty_folder,
    remove_file,
    remove_unfinished,
    stat,
    write_bytes,
    write_bytes_once,
)
from rankmill.storage.listing import (
    Listing,
    find_files,
    list_files,
    list_place,
    names_file,
    paths_below,
    places,
)
from rankmill.storage.naming import (
    absolute,
    child,
    connection_options,
    from_folder,
    is_local,
    is_temporary,
    lies_in,
    link_target,
    resolved,
)
from rankmill.storage.protocol import CONTROL_FOLDER, FileStat, Published
from rankmill.storage.stores import reconnect

__all__ = [
    "CONTROL_FOLDER",
    "FileStat",
    "Listing",
    "Published",
    "absolute",
    "check_conditional_puts",
    "child",
    "connection_options",
    "exists",
    "find_files",
    "from_folder",
    "is_local",
    "is_temporary",
    "lies_in",
    "link_target",
    "list_files",
    "list_place",
    "make_shared",
    "names",
    "names_file",
    "open_file",
    "paths_below",
    "places",
    "publish",
    "read_bytes",
    "reconnect",
    "remove",
    "remove_empty_folder",
    "remove_file",
    "remove_unfinished",
    "resolved",
    "stat",
    "write_bytes",
    "write_bytes_once",
]
