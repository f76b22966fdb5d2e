"""Reading, writing and planning without a model: rates, memory, requests.

    python -m bench.io [planning throughput s3 s3-reading memory engine] [--rows N] [--json]

Rates are ratios to pyarrow's dataset scan and write of the same columns, in turns in one run.
`engine` is a worker's memory over ten million pairs with a model of one tiny layer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pyarrow.parquet as pq

from bench.workload import read_corpus
from producer.inputs.source import read_source
from producer.jobs.check import plan_job
from producer.jobs.plan import shard_bounds
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.tables.files import read_files

Row = dict[str, Any]

_ROWS = 1_000_000
_CANDIDATES = 100
_ROUNDS = 9
_FILE_ROWS = 500_000
_WORDS = (10, 90)  # to a document: about 300 bytes
_SCANNED = ["query_id", "doc_id", "query", "document"]
_KEPT = ["query_id", "doc_id"]


def main() -> None:
    """Run the parts of the command line and print a Markdown table of their results, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*PARTS], metavar="PART", help=str([*PARTS]))
    parser.add_argument("--rows", type=int, help="rows, in place of each part's own number")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("INPUT", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _print_memory(*options.child)
        return
    results = {}
    for part in options.parts:
        print(f"{part} …", file=sys.stderr)
        results[part] = PARTS[part](options.rows)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print("| part | figures |\n| --- | --- |")
    for part, figures in results.items():
        print(f"| {part} | " + ", ".join(f"{n:,} {name}" for name, n in figures.items()) + " |")


def throughput(rows: int | None) -> Row:
    """Compare a job's reading and writing with pyarrow's, on the local disk."""
    with tempfile.TemporaryDirectory() as folder:
        _generate(folder + "/in", rows or _ROWS)
        return _in_turns(folder, fs.LocalFileSystem(), folder)


def throughput_s3(rows: int | None) -> Row:
    """Compare as `throughput` on an S3 endpoint on this machine, which shares its cores."""
    with _s3(rows or _ROWS) as (bucket, theirs):
        return _in_turns(f"s3://{bucket}", theirs, bucket)


def reading_s3(rows: int | None) -> Row:
    """Compare only reading: ranges by boto3, as a job reads, and pyarrow's own S3 client."""
    ours_s, theirs_s = [], []
    with _s3(rows or _ROWS) as (bucket, theirs):
        source = read_source(f"s3://{bucket}/in")
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            read = read_files(source.files, source.schema, _SCANNED, 0, 4096, "fail")
            n_rows = sum(table.num_rows for table in read)
            ours_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            for file in source.files:
                with pq.ParquetFile(file.uri.removeprefix("s3://"), filesystem=theirs) as parquet:
                    batches = parquet.iter_batches(4096, columns=_SCANNED, use_threads=False)
                    n_rows -= sum(batch.num_rows for batch in batches)
            theirs_s.append(time.perf_counter() - started)
            assert n_rows == 0
    return {
        "rows": source.n_rows,
        "boto3 s": round(median(ours_s), 2),
        "pyarrow s": round(median(theirs_s), 2),
        "ratio": round(median(theirs_s) / median(ours_s), 2),
    }


@contextmanager
def _s3(n_rows: int) -> Iterator[tuple[str, fs.FileSystem]]:
    """Yield a bucket with pairs under `in/`, and pyarrow's client for it."""
    from bench.s3_server import s3_bucket

    with s3_bucket() as bucket:
        _generate(f"s3://{bucket}/in", n_rows)
        theirs = fs.S3FileSystem(
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=os.environ["AWS_ENDPOINT_URL_S3"],
            region="us-east-1",
        )
        yield bucket, theirs


def memory(rows: int | None) -> Row:
    """Measure the peak memory of one process over a large input without scoring."""
    return _memory_of_child(rows or 5_000_000, "null", row_group=1_000_000)


def engine_memory(rows: int | None) -> Row:
    """Measure as `memory` through the engine, beyond the memory of the loaded model."""
    from bench.engine.shapes import TINY, make_checkpoint

    with tempfile.TemporaryDirectory() as model:
        make_checkpoint(TINY, Path(model), read_corpus().sentences)
        return _memory_of_child(rows or 10_000_000, model, row_group=100_000, words=(5, 15))


def planning(rows: int | None) -> Row:
    """Time the plan of 10,000 files of 100,000 rows: footers, columns, shards."""
    n_files = max(1, (rows or 1_000_000_000) // 100_000)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "00000.parquet")
        table = pa.table({name: pa.repeat("some text", 100_000) for name in _SCANNED})
        pq.write_table(table, first, row_group_size=10_000)
        for n in range(1, n_files):
            os.link(first, Path(folder, f"{n:05d}.parquet"))
        _forget_peak()
        started = time.perf_counter()
        source = read_source(folder)
        bounds = shard_bounds(source.group_rows, source.group_bytes, None)
        seconds = time.perf_counter() - started
    return {
        "files": n_files,
        "rows": source.n_rows,
        "row groups": len(source.group_rows),
        "shards": len(bounds) - 1,
        "seconds": round(seconds, 1),
        "peak RSS MB": _peak_mb(),
    }


# Planning is first: its memory would include the pools that later parts leave behind.
PARTS: dict[str, Callable[[int | None], Row]] = {
    "planning": planning,
    "throughput": throughput,
    "s3": throughput_s3,
    "s3-reading": reading_s3,
    "memory": memory,
    "engine": engine_memory,
}


def _in_turns(base: str, filesystem: fs.FileSystem, theirs: str) -> Row:
    from bench.run_shards import run_all_shards

    ours_s, theirs_s, ours_cpu_s, theirs_cpu_s = [], [], [], []
    for n in range(_ROUNDS):
        started, cpu_s = time.perf_counter(), time.process_time()
        spec = JobSpec(input_uri=f"{base}/in", output_uri=f"{base}/out{n}", model_id="null")
        run_all_shards(plan_job(spec))
        ours_s.append(time.perf_counter() - started)
        ours_cpu_s.append(time.process_time() - cpu_s)
        started, cpu_s = time.perf_counter(), time.process_time()
        _scan_and_write(f"{theirs}/in", f"{theirs}/copy{n}", filesystem)
        theirs_s.append(time.perf_counter() - started)
        theirs_cpu_s.append(time.process_time() - cpu_s)
    files = storage.find_files(f"{base}/in", (".parquet",))
    mb = sum(file.size_bytes for file in files) / 1e6
    n_rows = read_source(f"{base}/in").n_rows
    return {
        "rows": n_rows,
        "MB": round(mb),
        "rows/s": round(n_rows / median(ours_s)),
        "MB/s": round(mb / median(ours_s), 1),
        "pyarrow rows/s": round(n_rows / median(theirs_s)),
        "CPU s": round(median(ours_cpu_s), 2),
        "pyarrow CPU s": round(median(theirs_cpu_s), 2),
        "ratio": round(median(theirs_s) / median(ours_s), 2),
    }


def _scan_and_write(source: str, target: str, filesystem: fs.FileSystem) -> None:
    """Read what a job reads and write what it writes, the results being constants."""
    scanned = ds.dataset(source, filesystem=filesystem)
    number = pa.scalar(0.0, pa.float32())

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in scanned.to_batches(columns=_SCANNED):
            kept = batch.select(_KEPT)
            for name in ("logit", "score"):
                kept = kept.append_column(name, pa.repeat(number, batch.num_rows))
            for name in ("rank", "n_tokens"):
                kept = kept.append_column(name, pa.array(np.arange(batch.num_rows), pa.int32()))
            yield kept

    first = next(reader := batches())
    write = ds.ParquetFileFormat().make_write_options(compression="zstd")
    ds.write_dataset(
        _chained(first, reader),
        target,
        schema=first.schema,
        format="parquet",
        file_options=write,
        filesystem=filesystem,
        max_rows_per_file=32768 * 8,
        max_rows_per_group=65536,
    )


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _memory_of_child(
    n_rows: int, model: str, row_group: int, words: tuple[int, int] = _WORDS
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        _generate(folder + "/in", n_rows, row_group, words)
        command = [sys.executable, "-m", "bench.io", "--child", folder, model]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"rows": n_rows, **json.loads(done.stdout)}


def _print_memory(folder: str, model: str) -> None:
    """Run all shards and print the memory after loading the model, a quarter and all."""
    from bench.run_shards import run_all_shards
    from worker import models

    spec = JobSpec(
        input_uri=f"{folder}/in", output_uri=f"{folder}/out", model_id=model, precision="fp32"
    )
    job = plan_job(spec)
    models.load(job.spec)
    loaded, started = _rss_mb(), time.perf_counter()
    after: list[float] = []
    run_all_shards(job, lambda: after.append(_rss_mb()))
    print(
        json.dumps(
            {
                "shards": len(after),
                "seconds": round(time.perf_counter() - started, 1),
                "RSS MB loaded": loaded,
                "after a quarter": after[len(after) // 4],
                "after all": after[-1],
                "peak": _peak_mb(),
                "peak beyond loaded": _peak_mb() - loaded,
            }
        )
    )


def _generate(
    target: str, n_rows: int, row_group: int = 100_000, length: tuple[int, int] = _WORDS
) -> None:
    """Write pairs of real words, clustered by query."""
    words = read_corpus().words
    rng = np.random.default_rng(0)
    texts = [
        " ".join(words[start : start + n_words])
        for start, n_words in zip(
            rng.integers(0, len(words) - 100, 5000), rng.integers(*length, 5000), strict=True
        )
    ]
    pool = pa.array(texts)
    for n, start in enumerate(range(0, n_rows, _FILE_ROWS)):
        size = min(_FILE_ROWS, n_rows - start)
        queries = np.arange(start, start + size) // _CANDIDATES
        table = pa.table(
            {
                "query_id": pa.array(queries),
                "doc_id": pa.array(np.arange(start, start + size)).cast(pa.string()),
                "query": pool.take(pa.array(queries % 5000)),
                "document": pool.take(pa.array(rng.integers(0, 5000, size))),
            }
        )
        uri = storage.child(target, f"{n:04d}.parquet")
        storage.publish(uri, _writing(table, row_group))


def _writing(table: pa.Table, row_group: int) -> Callable[[Any], None]:
    return lambda file: pq.write_table(
        table, file, row_group_size=row_group, use_dictionary=["query"]
    )


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20)


def _peak_mb() -> float:
    """Return the peak since the start or `_forget_peak`; getrusage may give the parent's."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
