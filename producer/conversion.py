"""Convert a model's folder in a child process: a producer has no torch, and a pickle stays apart.

All is made in a folder next to the target and proved there. Only then is it moved.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from rankmill.errors import InputError, ModelUnavailable, OutputTaken, RankmillError
from rankmill.models.convertible import Lacking, lacking
from rankmill.models.folder_files import (
    CODE,
    SAFE_FILES,
    TEMPLATES,
    check_places,
    module_folders,
    setting_files,
)
from rankmill.models.permission import is_code_allowed
from rankmill.models.weights import INDEX, PICKLED, PICKLED_INDEX, WEIGHTS
from rankmill.settings import CHECKOUT

_NEEDED = ("transformers", "sentencepiece", "google.protobuf")


@dataclass(frozen=True)
class Converted:
    """A folder that can be loaded, and the files in it that were made."""

    folder: Path
    files: tuple[str, ...]


def convert_folder(folder: Path, out: Path | None = None, *, force: bool = False) -> Converted:
    """Make what a model's folder lacks, in the folder itself or in a copy at `out`.

    Args:
        folder: the model's folder.
        out: a folder that does not exist or is empty; None adds the files to `folder`.
        force: replace converted weights, and the model in `out`.

    Raises:
        ModelUnavailable: it cannot be converted, or the result cannot be scored with.
        InputError: there is nothing to convert, or a place cannot be written.
        OutputTaken: `out` holds files already, and is not a model to replace.
    """
    if not (folder / "config.json").is_file():
        what = "no config.json; is this" if folder.is_dir() else "no such folder; give"
        raise ModelUnavailable(f"{folder}: {what} a Hugging Face model folder")
    out = folder if out is None or out.resolve() == folder.resolve() else out
    names = files_below(folder)
    modules = module_folders(folder)
    lacks = lacking(names, modules)
    if force:
        again = lacking(names - {WEIGHTS, INDEX}, modules)
        lacks = Lacking(weights=again.weights, tokenizer=lacks.tokenizer)
    if not lacks:
        pickled = names & {PICKLED, PICKLED_INDEX}
        advice = f"; --force converts {min(pickled)} again" if pickled else ""
        raise InputError(
            f"{folder}: nothing to convert: it has safetensors and a tokenizer, or nothing to make "
            f"them of{advice}"
        )
    if out == folder:
        return make_lacking(folder, lacks, folder, may_run_code=is_code_allowed(str(folder)))
    return _copied(folder, lacks, out, force=force)


def copy_model(folder: Path, out: Path, *, force: bool = False) -> Converted:
    """Copy the files that a load reads to another folder.

    Raises:
        InputError: a place cannot be written.
        OutputTaken: `out` holds files already.
    """
    return _copied(folder, Lacking(weights=False, tokenizer=False), out, force=force)


def _copied(folder: Path, lacks: Lacking, out: Path, *, force: bool) -> Converted:
    try:
        is_free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
        if not is_free and not force:
            raise OutputTaken(f"{out}: is not empty; give another folder, or --force")
        if not is_free and not (out / "config.json").is_file():
            raise OutputTaken(f"{out}: --force replaces a model's folder, and this is not one")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror}") from error
    return make_lacking(folder, lacks, out, may_run_code=is_code_allowed(str(folder)))


def make_lacking(folder: Path, lacks: Lacking, out: Path, *, may_run_code: bool) -> Converted:
    """Make the files that a model lacks and put them into `out`, with the others if it is new.

    Raises:
        ModelUnavailable: as `convert_folder`.
        InputError: a place cannot be written.
    """
    if lacks:
        check_converter(str(folder), lacks)
    check_places(folder, with_code=True)
    try:
        return _made(folder, lacks, out, may_run_code)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror}") from error


def _made(folder: Path, lacks: Lacking, out: Path, may_run_code: bool) -> Converted:
    with TemporaryDirectory(dir=out.absolute().parent, prefix=".converting-") as made:
        staging = Path(made)
        with_weights = lacks.weights or out != folder
        for path in _kept(folder, lacks, with_weights=with_weights):
            target = staging / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        files = _run(folder, staging, lacks, may_run_code) if lacks else []
        moved = files if out == folder else sorted(files_below(staging))
        stale = [*out.glob("*.safetensors"), out / INDEX] if lacks.weights else []
        if out != folder:
            stale = [path for pattern in (*SAFE_FILES, CODE) for path in out.glob(pattern)]
            stale += (out / TEMPLATES).glob("*.jinja")
        for path in stale:
            path.unlink(missing_ok=True)
        for name in moved:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, out / name)
    return Converted(out, tuple(files))


def check_converter(where: str, lacks: Lacking) -> None:
    """Refuse a conversion for which packages are missing.

    Raises:
        InputError: naming them and the extra that has them.
    """
    wanted = (*_NEEDED, *(("torch", "safetensors") if lacks.weights else ()))
    missing = [name for name in wanted if _is_missing(name)]
    if missing:
        raise InputError(
            f"{where}: converting it needs {', '.join(missing)} "
            "(pip install 'rankmill[worker,convert]')"
        )


def _is_missing(name: str) -> bool:
    try:
        return find_spec(name) is None
    except ModuleNotFoundError:  # the package above it
        return True


def _run(folder: Path, staging: Path, lacks: Lacking, may_run_code: bool) -> list[str]:
    request = {
        **{"folder": str(folder.absolute()), "target": str(staging), "weights": lacks.weights},
        **{"tokenizer": lacks.tokenizer, "may_run_code": may_run_code},
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker.conversion"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode == InputError.exit_code:
        raise ModelUnavailable(done.stdout.strip().replace(str(staging), str(folder)))
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise RankmillError(f"{folder}: converting failed (exit {done.returncode}): {said[-1]}")
    files: list[str] = json.loads(done.stdout)
    return files


def _kept(folder: Path, lacks: Lacking, *, with_weights: bool) -> list[Path]:
    """Return the files that a load reads besides those that will be made."""
    weights = [folder / name / WEIGHTS for name in module_folders(folder) if with_weights]
    if with_weights and not lacks.weights:
        weights += folder.glob("*.safetensors")
    made = {INDEX, PICKLED_INDEX} if lacks.weights else {PICKLED_INDEX}
    settings = [path for path in setting_files(folder, with_code=True) if path.name not in made]
    return [*(path for path in weights if path.is_file()), *settings]


def files_below(folder: Path) -> set[str]:
    """Return the paths of all files in a folder and below it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}
