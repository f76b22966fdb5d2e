"""Input files that are damaged, that lie about their size, or that ask for much work."""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.hostile.mutants import mutants
from tests.support.inputs import pairs

Make = Callable[[Path], object]


def good_files() -> dict[str, bytes]:
    """Return an unbroken file of each format, by its name."""
    rows = pairs(6, 5)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    heads = ("query_id", "query", "doc_id", "document")
    table = "\n".join("\t".join(row[name] for name in heads) for row in rows)
    lists = [{"query": "q", "documents": ["a", "b"]}, {"query": "r", "documents": ["c"]}]
    files = {
        "a.parquet": _parquet(pa.Table.from_pylist(rows), compression="zstd", row_group_size=7),
        "b.parquet": _parquet(pa.Table.from_pylist(rows), compression="none", use_dictionary=False),
        "l.parquet": _parquet(pa.Table.from_pylist(lists), compression="snappy"),
        "a.jsonl": lines.encode(),
        "a.jsonl.gz": gzip.compress(lines.encode(), mtime=0),
        "a.jsonl.zst": pa.Codec("zstd").compress(lines.encode(), asbytes=True),
        "a.tsv": ("\t".join(heads) + "\n" + table + "\n").encode(),
    }
    return files


def damaged_files(n_each: int) -> Iterator[tuple[str, Make]]:
    """Yield damaged files of each format, by their names."""
    for seed, (name, content) in enumerate(good_files().items()):
        for number, mutant in enumerate(mutants(content, n_each, seed)):
            stem, _, suffix = name.partition(".")
            yield f"{stem}-{number}.{suffix}", _writes(mutant)


def monsters() -> Iterator[tuple[str, Make]]:
    """Yield files with their own ways to ask for much, by their names."""
    texts = pa.array(["text"] * 3)
    for depth in (10, 60, 1_000, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")):
            value = opening * depth + "1" + closing * depth
            row = f'{{"query": "q", "document": "d", "x": {value}}}\n'
            yield f"deep-{depth}-{len(opening)}.jsonl", _writes(row.encode())
            yield f"open-{depth}-{len(opening)}.jsonl", _writes((opening * depth).encode())
    for n_keys in (1_999, 2_001, 50_000):
        keys = ", ".join(f'"k{n}": {n}' for n in range(n_keys))
        yield f"keys-{n_keys}.jsonl", _writes(f'{{"query": "q", "document": "d", {keys}}}'.encode())
    for n_columns in (1_999, 2_001):
        yield f"columns-{n_columns}.parquet", _writes(partial(_many_columns, n_columns))
    distinct = "".join(f'{{"query": "q", "document": "d", "k{n}": 1}}\n' for n in range(30_000))
    yield "distinct-keys.jsonl", _writes(distinct.encode())
    odd = ("x" * 100_000, "\x1b[31m[bold]red", "a\nb", "\0", "🦄" * 500, "", " ", "a.b", "*")
    for number, name in enumerate(odd):
        table = pa.table({"query": texts, "document": texts, name: texts})
        yield f"column-{number}.parquet", _writes(_parquet(table))
        row = json.dumps({"query": "q", "document": "d", name: 1}) + "\n"
        yield f"key-{number}.jsonl", _writes(row.encode())
    for kind, compress in (("gz", gzip.compress), ("zst", pa.Codec("zstd").compress)):
        for n_bytes in (10**6, 2 * 10**8):
            for name, unit in (("line", b" "), ("lines", b"\n"), ("zeros", b"\0"), ("quote", b'"')):
                for suffix, head in (("jsonl", b""), ("tsv", b"query\tdocument\n")):
                    bomb = partial(_bomb, compress, head, unit, n_bytes)
                    yield f"bomb-{name}-{n_bytes}.{suffix}.{kind}", _writes(bomb)
    for kind in ("gz", "zst"):
        yield f"not-compressed.jsonl.{kind}", _writes(b'{"query": "q", "document": "d"}\n')
    yield "repeated.parquet", _writes(_repeated)
    for depth in (5, 40):
        yield f"nested-{depth}.parquet", _writes(partial(_nested, depth))
    yield from _lying_footers()
    yield from _odd_texts()
    yield from _special()


def _lying_footers() -> Iterator[tuple[str, Make]]:
    """Change counts in the Thrift footer, where a reader takes them for true."""
    content = _parquet(pa.Table.from_pylist(pairs(6, 5)), row_group_size=10)
    length = struct.unpack("<I", content[-8:-4])[0]
    start = len(content) - 8 - length
    for at in range(start, start + min(length, 160), 2):
        for new in (b"\xfe\xff\xff\xff\x0f", b"\x00"):
            changed = content[:at] + new + content[at + len(new) :]
            yield f"footer-{at - start}-{len(new)}.parquet", _writes(changed)
    for claim in (0, 1, 7, length * 2, 2**31 - 1, 2**32 - 1):
        claimed = content[:-8] + struct.pack("<I", claim) + b"PAR1"
        yield f"footer-length-{claim}.parquet", _writes(claimed)
    yield "metadata.parquet", _writes(_with_metadata)


def _many_columns(n: int) -> bytes:
    texts = pa.array(["text"] * 3)
    columns = {"query": texts, "document": texts} | {f"c{number}": texts for number in range(n)}
    return _parquet(pa.table(columns))


def _bomb(compress: Callable[[bytes], object], head: bytes, unit: bytes, n_bytes: int) -> bytes:
    return head + bytes(compress(unit * n_bytes))


def _repeated() -> bytes:
    same = pa.array(["x" * 1_000_000]).take(pa.array([0] * 100, pa.int32()))
    return _parquet(pa.table({"query": same, "document": same}))


def _nested(depth: int) -> bytes:
    texts = pa.array(["text"] * 3)
    nested: pa.DataType = pa.string()
    for _ in range(depth):
        nested = pa.list_(nested)
    return _parquet(pa.table({"query": texts, "document": texts, "n": pa.nulls(3, nested)}))


def _with_metadata() -> bytes:
    table = pa.Table.from_pylist(pairs(2, 2))
    return _parquet(table.replace_schema_metadata({"k": "v" * 20_000_000}))


def _odd_texts() -> Iterator[tuple[str, Make]]:
    quoted = b'query\tdocument\n"never ends\tx\n' + b"a\tb\n" * 1000
    texts = {
        "quote": quoted,
        "nul": b"query\tdocument\na\0b\tc\n",
        "utf16": "query\tdocument\na\tb\n".encode("utf-16"),
        "latin": "query\tdocument\né\tè\n".encode("latin-1"),
        "bom": b"\xef\xbb\xbfquery\tdocument\na\tb\n",
        "empty": b"",
        "newlines": b"\n" * 100_000,
        "header": b"query\tdocument\n",
        "wide": b"query\tdocument\n" + b"\t" * 5_000 + b"\n",
        "same": b"query\tquery\tdocument\na\tb\tc\n",
        "escape": b"query\tdocument\x1b]0;title\x07\na\tb\n",
        "cr": b"query\tdocument\ra\tb\r",
    }
    for name, content in texts.items():
        yield f"{name}.tsv", _writes(content)
        yield f"{name}.jsonl", _writes(content)
        yield f"{name}.parquet", _writes(content)
    values = (
        "1e999",
        "NaN",
        "-0",
        "9" * 5000,
        '"\\ud800"',
        "null",
        "[]",
        "{}",
        '"\\u0000"',
        "True",
    )
    for number, value in enumerate(values):
        for key in ("query", "document", "x"):
            row = {"query": '"q"', "document": '"d"', key: value}
            line = "{" + ", ".join(f'"{name}": {each}' for name, each in row.items()) + "}\n"
            yield f"value-{number}-{key}.jsonl", _writes(line.encode() * 2)


def _special() -> Iterator[tuple[str, Make]]:
    for suffix in ("parquet", "jsonl", "tsv"):
        yield f"fifo.{suffix}", os.mkfifo
        yield f"folder.{suffix}", Path.mkdir
        yield f"socket.{suffix}", _bind
        yield f"loop.{suffix}", lambda path: path.symlink_to(path.name)
        yield f"broken.{suffix}", lambda path: path.symlink_to("nowhere")
        for device in ("zero", "null", "tty", "stdin", "random"):
            yield f"{device}.{suffix}", lambda path, to=device: path.symlink_to(f"/dev/{to}")
        yield f"mem.{suffix}", lambda path: path.symlink_to("/proc/self/mem")
        yield f"environ.{suffix}", lambda path: path.symlink_to("/proc/self/environ")


def _bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _writes(content: bytes | Callable[[], bytes]) -> Make:
    """Return what writes the content; a function makes it then, since some of it takes long."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content())


def _parquet(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue())
