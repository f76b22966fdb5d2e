"""Each hostile input with the command that gets it."""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import RankmillError
from tests.support.hostile import files, words
from tests.support.hostile.mutants import mutants

_JOB = ("--model", "null", "--shard-pairs", "7", "--max-reject-rate", "0.5")


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Attributes:
        group: its row in the table.
        name: unique in the group.
        act: what gets it, called in a folder of its own.
    """

    group: str
    name: str
    act: Callable[[], object]


def file_cases(n_each: int) -> Iterator[Case]:
    """Submit each file, and do what a worker does with the job."""
    for name, make in (*files.damaged_files(n_each), *files.monsters()):
        yield Case("files", name, lambda name=name, make=make: _run_file(name, make))


def run_cases(n_each: int) -> Iterator[Case]:
    """Submit damaged TREC runs, queries and documents."""
    run = "".join(f"q{n % 3} Q0 d{n} {n} {9 - n}.5 tag\n" for n in range(9)).encode()
    texts = {
        "queries": "q0\tone\nq1\ttwo\nq2\tthree\n",
        "corpus": "".join(f"d{n}\tx {n}\n" for n in range(9)),
    }
    for seed, broken in enumerate(("run", *texts)):
        good = {"run": run} | {name: text.encode() for name, text in texts.items()}
        for number, mutant in enumerate(mutants(good[broken], n_each, seed)):
            given = {**good, broken: mutant}
            yield Case("runs", f"{broken} {number}", lambda given=given: _run_trec(given))


def place_cases() -> Iterator[Case]:
    """Give each odd place as input, as output and as a job."""
    for place in words.PLACES:
        yield Case(
            "places", f"input {place!r:.60}", lambda p=place: command("submit", p, "out", *_JOB)
        )
        yield Case("places", f"output {place!r:.60}", lambda p=place: _submit_to(p))
        yield Case("places", f"status {place!r:.60}", lambda p=place: command("status", "--", p))


def name_cases() -> Iterator[Case]:
    """Give each odd name to each flag, and to the commands on a job."""
    needed = {"eval": ("--qrels", "x"), "diff": ("y",), "export": ("--to", "csv")}
    for name in words.NAMES:
        for flag in words.FLAGS:
            yield Case(
                "names",
                f"{flag} {name!r:.40}",
                lambda f=flag, n=name: _submit_to("out", f"{f}={n}"),
            )
        for verb in words.ON_JOBS:
            more = needed.get(verb, ())
            yield Case(
                "names",
                f"{verb} {name!r:.40}",
                lambda v=verb, n=name, m=more: command(*v.split(), *m, "--", n),
            )


def output_cases(finished: Path, n_each: int) -> Iterator[Case]:
    """Damage a file of a finished output at a time, and use the output."""
    # Not watch: it rightly waits for a job whose _SUCCESS is gone.
    verbs = ("status", "report", "retry-rejects", "resume", "cancel", "submit")
    chance = random.Random(0)
    paths = [
        path for path in sorted(finished.rglob("*")) if path.is_file() and path.name != "in.parquet"
    ]
    for seed, path in enumerate(paths):
        inside = path.relative_to(finished)
        content = path.read_bytes() or b"\n"
        ways: list[Callable[[Path], object]] = [
            *(
                lambda at, to=mutant: at.write_bytes(to)
                for mutant in mutants(content, n_each, seed)
            ),
            *(lambda at, to=text: at.write_bytes(to) for text in _DOCUMENTS),
            *(lambda at, to=value: at.write_bytes(_with_value(at, to)) for value in _VALUES),
            os.mkfifo,
            Path.mkdir,
            lambda at: at.symlink_to("/dev/zero"),
            lambda at: at.symlink_to(at.name),
        ]
        for number, damage in enumerate(ways):
            verb = chance.choice(verbs)
            yield Case(
                "outputs",
                f"{inside} {number} {verb}",
                lambda i=inside, d=damage, v=verb: _use_damaged(finished, i, d, v),
            )


_DOCUMENTS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b"\0" * 5_000_000,
)
_VALUES = (
    b"-1",
    b"null",
    b"1e999",
    b"9" * 400,
    b'"\\u001b[31m"',
    b"[]",
    b'"x"',
    b"2147483648",
    b"0",
)


def _with_value(at: Path, value: bytes) -> bytes:
    """Return a JSON text with one of its numbers replaced."""
    content = at.read_bytes() if at.exists() else b"{}"
    found = list(re.finditer(rb"(?<=[:\[,])\d+(?=[,}\]])", content.replace(b": ", b":")))
    content = content.replace(b": ", b":")
    if not found:
        return value
    chosen = found[len(value) * 7 % len(found)]
    return content[: chosen.start()] + value + content[chosen.end() :]


def command(*arguments: str) -> None:
    """Run a command as a user does."""
    from producer.cli import app

    sys.argv = ["rankmill", *arguments]
    app.main()


def _submit_to(output: str, *options: str) -> None:
    from tests.support.inputs import pairs, write

    # A root user may write anywhere, and what is written outside of the folder stays there.
    os.environ["RANKMILL_ALLOWED_PREFIXES"] = f"/dev,/proc,/sys,{Path.cwd()}"
    write(pairs(3, 3), Path("in.parquet"))
    command("submit", "in.parquet", "--model", "null", *options, "--", output)


def _run_file(name: str, make: files.Make) -> None:
    Path("in").mkdir()
    path = Path("in", name).absolute()
    try:
        make(path)
    except (OSError, ValueError):
        return  # no file can be made like that
    _submit_and_work(str(path))


def _run_trec(given: dict[str, bytes]) -> None:
    for name, content in given.items():
        Path(f"{name}.tsv" if name != "run" else "a.trec").write_bytes(content)
    _submit_and_work(
        "a.trec", "--layout", "run", "--queries", "queries.tsv", "--corpus", "corpus.tsv"
    )


def _submit_and_work(place: str, *options: str) -> None:
    try:
        command("submit", place, "out", *_JOB, *options)
    except SystemExit as left:
        if left.code:
            raise
    _as_worker()


def _as_worker() -> None:
    """Prepare the job or score its shards; an error of the tree fails the job in one line."""
    from bench.run_shards import run_all_shards
    from producer.prepare.job_inputs import find_inputs
    from producer.prepare.prepare import prepare
    from rankmill.output.output import Output

    output = Output("out")
    try:
        record = output.read_job()
        assert record is not None
        if output.read_plan() is None:
            made, scratch = str(Path("prepared").absolute()), Path("scratch").absolute()
            prepare(record.spec, find_inputs(record.spec), made, scratch, lambda *_: None)
        else:
            run_all_shards(output.load_job())
    except RankmillError as error:
        print(f"rankmill: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _use_damaged(finished: Path, inside: Path, damage: Callable[[Path], object], verb: str) -> None:
    shutil.copytree(finished, "job")
    at = Path("job", inside).absolute()
    content = at.read_bytes()
    at.unlink()
    try:
        damage(at)
    except FileNotFoundError:
        at.write_bytes(content)
    if verb == "submit":
        command("submit", "job/in.parquet", "job/out", *_JOB)
    else:
        command(verb, "job/out")
