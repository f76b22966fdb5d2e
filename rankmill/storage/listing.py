"""Find the files that a place names: a file, a folder, a glob, or several with commas.

A glob may match folders. In a folder, names that begin with `_` or `.` are skipped at every depth,
as Spark and pyarrow do. Jobs' control files are found only if the place names their folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rankmill.errors import InputError, InputMissing, StorageRefused
from rankmill.settings import settings
from rankmill.storage.glob import fixed_start, is_glob, matches
from rankmill.storage.naming import absolute, resolved
from rankmill.storage.protocol import CONTROL_FOLDER, FileStat
from rankmill.storage.stores import store_of


@dataclass(frozen=True)
class Listing:
    """The files of a place, each tuple in order of name.

    Attributes:
        place: the absolute place.
        top: the folder that holds all of the files.
        named: the file itself, or the files that the glob matches.
        inside: the visible files of the folder, or of the folders that the glob matches.
        hidden: all other files, such as those whose name begins with `_` or `.`.
    """

    place: str
    top: str
    named: tuple[FileStat, ...] = ()
    inside: tuple[FileStat, ...] = ()
    hidden: tuple[FileStat, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether the place is one file."""
        return len(self.named) == 1 and self.named[0].uri == self.place

    @property
    def is_folder(self) -> bool:
        """Whether the place is a folder, not a file or a glob."""
        return self.place == self.top


def list_place(uri: str) -> Listing:
    """Return the files of a place, from one listing.

    Raises:
        InputError: it has more than RANKMILL_MAX_FILES.
    """
    store = store_of(uri)
    place = store.absolute(uri)
    itself = store.stat(place)
    if itself is not None:
        return Listing(place, place.rpartition("/")[0], named=(itself,))
    top, pattern = _split(place)
    limit = settings().max_files
    files = list(islice(store.walk(top or "/", pattern), limit + 1))
    if len(files) > limit:
        raise InputError(
            f"{uri}: more than {limit} files lie there; name a folder or a glob with fewer, or set "
            "RANKMILL_MAX_FILES higher"
        )
    named, inside, hidden = [], [], []
    for file in sorted(files, key=lambda file: file.uri):
        path = file.uri.removeprefix(top)
        if pattern and matches(path, pattern) and not _is_control(path, pattern):
            named.append(file)
        elif _is_input(path, pattern, ("",)):
            inside.append(file)
        else:
            hidden.append(file)
    return Listing(place, top, tuple(named), tuple(inside), tuple(hidden))


def find_files(uri: str, suffixes: tuple[str, ...]) -> list[FileStat]:
    """Return the files of a place in order of name, by their absolute places.

    Args:
        uri: a file, a folder or a glob.
        suffixes: endings of the files to take from folders, in small letters; a file's own may be
            in capital letters.

    Raises:
        InputMissing: there are none.
    """
    files = list_files(uri, suffixes)
    if not files:
        raise InputMissing(f"{uri}: no such file, and no {' or '.join(suffixes)} file under it")
    return files


def list_files(uri: str, suffixes: tuple[str, ...]) -> list[FileStat]:
    """Return the same as `find_files`, or an empty list if there are none."""
    return sorted(_files(uri, suffixes), key=lambda file: file.uri)


def places(uris: str) -> list[str]:
    """Return the places that an input lists with commas; one that exists is not taken apart.

    Raises:
        InputError: the list is empty.
    """
    try:
        is_one = "," not in uris or any(True for _ in _files(uris, ("",)))
    except StorageRefused:  # the whole may not be read; perhaps each of its items may
        is_one = False
    items = [uri.strip() for uri in ([uris] if is_one else uris.split(",")) if uri.strip()]
    if not items:
        raise InputError(f"{uris!r} names no place; give a file, a folder or a glob")
    return items


def paths_below(place: str, files: Sequence[FileStat]) -> list[str]:
    """Return the part of each path, from a `/` on, that the place leaves open.

    For a folder that is the path below it. For a glob it is the path below the deepest folder
    without a wildcard. For a file it is empty.

    Args:
        place: what `find_files` was given.
        files: what it returned.
    """
    start = absolute(place)
    if not files[0].uri.startswith(start):
        start = fixed_start(start)[0]
    return [file.uri.removeprefix(start) for file in files]


def names_file(place: str, uri: str) -> bool:
    """Return whether `place` would name the file `uri` once it is written; links are followed.

    A folder names all files below it, also those that begin with `_`, but no control files.
    """
    top, pattern = _split(absolute(place))
    top = resolved(top or "/").rstrip("/")
    path = resolved(uri)
    if not path.startswith(top + "/"):
        return False
    path = path.removeprefix(top)
    is_named = matches(path, pattern) or matches(path, f"{pattern}/**")
    return is_named and not _is_control(path, pattern)


def _files(uri: str, suffixes: tuple[str, ...]) -> Iterator[FileStat]:
    store = store_of(uri)
    place = store.absolute(uri)
    itself = store.stat(place)
    if itself is not None:
        yield itself
        return
    top, pattern = _split(place)
    for file in store.walk(top or "/", pattern):
        if _is_input(file.uri.removeprefix(top), pattern, suffixes):
            yield file


def _split(place: str) -> tuple[str, str]:
    """Split a glob into its fixed folder and its pattern; a folder's pattern is empty."""
    if is_glob(place) and not store_of(place).names(place):
        return fixed_start(place)
    return place.rstrip("/"), ""


def _is_input(path: str, pattern: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether the pattern matches the file, or a folder in which the file is visible."""
    if _is_control(path, pattern):
        return False
    if matches(path, pattern):
        return True
    is_visible = not any(name.startswith(("_", ".")) for name in path.split("/"))
    return is_visible and path.lower().endswith(suffixes) and matches(path, f"{pattern}/**")


def _is_control(path: str, pattern: str) -> bool:
    """Return whether a path is a job's control file and the pattern does not name its folder."""
    return CONTROL_FOLDER in path.split("/") and CONTROL_FOLDER not in pattern.split("/")
