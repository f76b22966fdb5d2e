"""Models that are damaged or built wrong, and what loads them."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rankmill.errors import RankmillError
from tests.support.hostile.cases import Case
from tests.support.hostile.mutants import mutants


def model_cases(good: Path, n_each: int) -> Iterator[Case]:
    """Damage a file of a model at a time, and load it as a worker does."""
    for seed, path in enumerate(sorted(path for path in good.rglob("*") if path.is_file())):
        inside = path.relative_to(good)
        for number, mutant in enumerate(mutants(path.read_bytes() or b"\n", n_each, seed)):
            yield Case("models", f"{inside} {number}", partial(_load_damaged, good, inside, mutant))


def broken_cases(models: Path) -> Iterator[Case]:
    """Break a model folder in each way that its unit test knows.

    Args:
        models: a folder for the unbroken models, each made where a case first needs it.
    """
    from tests.support.models.broken import CASES

    for number, (name, model, _, _) in enumerate(CASES):
        yield Case("models", f"{model}: {name}", partial(_load_broken, models, number))


def load(folder: Path) -> None:
    """Load a model folder as a worker does."""
    import torch

    from rankmill.contract.job import JobSpec
    from worker import models

    torch.set_num_threads(1)
    spec = JobSpec(input_uri="in", output_uri="out", model_id=str(folder.absolute()))
    try:
        models.load(spec)
    except RankmillError as error:
        print(f"rankmill: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _load_damaged(good: Path, inside: Path, mutant: bytes) -> None:
    shutil.copytree(good, "model")
    Path("model", inside).write_bytes(mutant)
    load(Path("model"))


def _load_broken(models: Path, number: int) -> None:
    import torch

    from tests.support.models.broken import CASES
    from tests.support.models.checkpoints import BUILDERS

    _, model, break_it, _ = CASES[number]
    if not (models / model).exists():
        torch.set_num_threads(1)
        with contextlib.redirect_stderr(
            io.StringIO()
        ):  # the bars of progress are not the loading's
            BUILDERS[model](Path(model).absolute())
        Path(model).rename(models / model)
    shutil.copytree(models / model, "broken")
    break_it(Path("broken"))
    load(Path("broken"))
