"""Select the files with rows from a listing: of one kind and one split, each once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from producer.formats.file_format import SUFFIXES, FileFormat
from rankmill import storage
from rankmill.errors import InputError, InputMissing
from rankmill.storage import FileStat, Listing

# Suffix to the kind of file, as users call it. Files of one kind are read together.
_KINDS = {
    **{suffix: str(file_format) for suffix, file_format in SUFFIXES.items()},
    ".orc": "ORC",
    ".avro": "Avro",
    ".lance": "Lance",
    ".xlsx": "Excel",
    ".xls": "Excel",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".npy": "NumPy",
    ".npz": "NumPy",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".db": "a database",
    ".duckdb": "a database",
    ".sqlite": "a database",
}
_READ_KINDS = tuple(map(str, FileFormat))
_READ_SHOWN = "Parquet, Arrow, JSONL, CSV, TSV or a TREC run"
_PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip", ".lz4", ".snappy", ".br")
# Files that describe the data next to them.
_DESCRIPTION = re.compile(
    r"[_.].*|(readme|licen[cs]e|changelog|notice)(\..*)?|.*\.(md|crc|md5|sha1|sha256|sha512|asc|sig)"
    r"|(md5|sha\d+)sums?(\.txt)?|checksums?(\.txt)?"
    r"|(dataset_infos?|dataset_dict|state|metadata|manifest|schema|stats|config|croissant"
    r"|datapackage)\.json|.+\.metadata\.json",
    re.IGNORECASE,
)
_MAGIC = {b"PAR1": "Parquet", b"ORC": "ORC", b"Obj\x01": "Avro", b"ARROW1": "Arrow"}
_MAGIC_BYTES = max(map(len, _MAGIC))
_N_UNKNOWN_OPENED = 20
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# The files of one data set, by BEIR's names.
_ROLES = ("queries", "corpus", "qrels")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\..*)")
_PARTITION = re.compile(r"([^/=]+)=[^/]*")
_SPLIT_COLUMNS = {"split", "subset", "fold", "partition"}


def data_files(listing: Listing) -> list[FileStat]:
    """Return the files with rows among those that a place names.

    A glob names the files to take, except those that a `*` finds in hidden folders and those that
    only describe the data. In a folder, all files count that may have rows.

    Raises:
        InputError: there are none, a folder has several kinds or splits, or a file is there both
            packed and unpacked.
    """
    if listing.is_file:
        return list(listing.named)
    inside = _of_folder(listing)
    files = sorted([*_of_glob(listing), *inside], key=lambda file: file.uri)
    if not files:
        raise InputMissing(_nothing_in(listing))
    by_stem: dict[str, FileStat] = {}
    for file in files:
        other = by_stem.setdefault(_stem(file.uri), file)
        if other is not file:
            raise InputError(
                f"{listing.place} holds {_shown(listing, other)} and {_shown(listing, file)}, "
                "which may be the same rows twice; name the one to read, or both with a comma"
            )
    if inside:
        _check_splits(listing, inside)
    return files


def kind_of(uri: str) -> str | None:
    """Return the kind of file that the suffix of a name shows, or None."""
    name, packed = _unpacked(uri)
    kind = _KINDS.get(_suffix(name))
    return f"packed {kind}" if kind in ("Parquet", "Arrow") and packed else kind


def _of_glob(listing: Listing) -> list[FileStat]:
    """Return the files that a glob matches, without hidden folders and descriptions of data."""
    parts = listing.place.removeprefix(listing.top).split("/")
    if any(part.startswith(("_", ".")) for part in parts):
        return list(listing.named)
    visible = [file for file in listing.named if "/_" not in _path(listing, _folder(file.uri))]
    visible = [file for file in visible if "/." not in _path(listing, _folder(file.uri))]
    is_data = [_name(f.uri).startswith("_") and bool(kind_of(f.uri)) for f in visible]
    data = [f for f, it in zip(visible, is_data, strict=True) if it or not _is_description(f.uri)]
    return data or visible


def _of_folder(listing: Listing) -> list[FileStat]:
    """Return the files with rows inside a folder, which must all be of one kind."""
    by_kind: dict[str, list[FileStat]] = {}
    unknown = []
    for file in listing.inside:
        kind = None if _is_description(file.uri) else kind_of(file.uri)
        if kind is not None:
            by_kind.setdefault(kind, []).append(file)
        elif not _is_description(file.uri):
            unknown.append(file)
    if not by_kind:
        return _parquet_without_suffix(unknown)
    if len(by_kind) > 1:
        shown = " and ".join(f"{kind} ({_shown(listing, of[0])})" for kind, of in by_kind.items())
        raise InputError(f"{listing.place} holds {shown}; {_advice(listing, by_kind)}")
    [(kind, files)] = by_kind.items()
    if kind not in _READ_KINDS:
        raise InputError(
            f"{listing.place} holds {kind} ({_shown(listing, files[0])}), which is not read; give "
            f"{_READ_SHOWN}"
        )
    for file in unknown[:_N_UNKNOWN_OPENED]:
        if file.size_bytes < _MAGIC_BYTES:
            continue
        with storage.open_file(file) as content:
            start = content.read(_MAGIC_BYTES)
        hidden = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        if hidden is not None:
            raise InputError(
                f"{listing.place} holds {kind} ({_shown(listing, files[0])}) and by its content "
                f"{hidden} ({_shown(listing, file)}); {_advice(listing, by_kind)}"
            )
    return files


def _parquet_without_suffix(files: Sequence[FileStat]) -> list[FileStat]:
    """Return the files without a suffix, as Athena writes them, if all begin as Parquet does."""
    plain = [file for file in files if "." not in _name(file.uri)]
    if len(plain) < len(files):
        return []
    for file in plain[:_N_UNKNOWN_OPENED]:
        with storage.open_file(file) as content:
            if not content.read(_MAGIC_BYTES).startswith(b"PAR1"):
                return []
    return plain


def _check_splits(listing: Listing, inside: Sequence[FileStat]) -> None:
    of_role = {stem: file for file in inside if (stem := _name(_stem(file.uri)).lower()) in _ROLES}
    of_split: dict[str, FileStat] = {}
    of_shards: dict[str, dict[str, FileStat]] = {}
    for file in inside:
        path = _path(listing, file.uri)
        for part in path.split("/"):
            column = _PARTITION.fullmatch(part)
            if column and column[1].lower() not in _SPLIT_COLUMNS:
                continue
            for word in re.split(r"[^a-z]+", part.lower()):
                if word in _SPLITS:
                    of_split.setdefault(_SPLITS[word], file)
        if shard := _SHARD.fullmatch(path):
            of_shards.setdefault(path.rpartition("/")[0], {}).setdefault(shard[1], file)
    several = [of_role, of_split, *of_shards.values()]
    for splits in several:
        if len(splits) > 1:
            names = " and ".join(_shown(listing, file) for file in list(splits.values())[:3])
            raise InputError(
                f"{listing.place} holds several sets of rows, {names}; "
                f"give one, such as {_glob_of(listing, next(iter(splits.values())))}, "
                f"or all by a glob such as {_any_of(listing, inside[0])}"
            )


def _glob_of(listing: Listing, file: FileStat) -> str:
    """Return a glob for the split that a file belongs to."""
    path = _path(listing, file.uri)
    parts = path.split("/")
    for at, part in enumerate(parts[:-1]):
        if set(re.split(r"[^a-z]+", part.lower())) & set(_SPLITS):
            return "/".join([listing.top, *parts[1 : at + 1]])
    shard = _SHARD.fullmatch(path)
    return f"{listing.top}{shard[1]}-*{shard[2]}" if shard else file.uri


def _any_of(listing: Listing, file: FileStat) -> str:
    n_folders = _path(listing, file.uri).count("/") - 1
    name, packed = _unpacked(file.uri)
    return f"{listing.top}/{'**/' if n_folders else ''}*{_suffix(name)}{packed}"


def _advice(listing: Listing, by_kind: dict[str, list[FileStat]]) -> str:
    """Return the advice for a folder with several kinds of files."""
    readable = [files[0] for kind, files in by_kind.items() if kind in _READ_KINDS]
    if not readable:
        return f"give {_READ_SHOWN}"
    return f"say which by a glob such as {_any_of(listing, readable[0])}"


def _nothing_in(listing: Listing) -> str:
    there = [_shown(listing, file) for file in (*listing.named, *listing.inside)]
    hidden = [_shown(listing, file) for file in listing.hidden]
    kinds = "Parquet, JSONL, CSV, TSV, Arrow or TREC run"
    lead = f"{listing.place}: no such file, and no {kinds} file under it"
    if not there and not hidden:
        return lead
    shown = ", ".join((there or hidden)[:5]) + (", …" if len(there or hidden) > 5 else "")
    if not there:
        return f"{lead}, only hidden ones: {shown}"
    return f"{lead}, only {shown}; a glob such as {listing.top}/* reads files by their content"


def _is_description(uri: str) -> bool:
    return _DESCRIPTION.fullmatch(_name(uri)) is not None


def _unpacked(uri: str) -> tuple[str, str]:
    """Return a name without the suffix of a compression, and that suffix."""
    packed = next((suffix for suffix in _PACKED if uri.lower().endswith(suffix)), "")
    return uri[: len(uri) - len(packed)], packed


def _stem(uri: str) -> str:
    """Return a URI without the suffixes of compression and kind."""
    name, _ = _unpacked(uri)
    return name[: len(name) - len(_suffix(name))] if _suffix(name) in _KINDS else name


def _suffix(name: str) -> str:
    dot = _name(name).rfind(".")
    return _name(name)[dot:].lower() if dot >= 0 else ""


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _path(listing: Listing, uri: str) -> str:
    return uri.removeprefix(listing.top)


def _shown(listing: Listing, file: FileStat) -> str:
    return _path(listing, file.uri).removeprefix("/")
