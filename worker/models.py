"""Models as a worker holds them: one at a time, with the exact fingerprint of what was loaded."""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rankmill.contract.job import Activation, JobSpec, Precision
from rankmill.contract.results import Scoring
from rankmill.devices.choice import check_torch, choose
from rankmill.devices.cores import n_usable_cores
from rankmill.errors import ModelUnavailable
from rankmill.logs import get_logger
from rankmill.models.folder_files import setting_files
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model, null_rate
from rankmill.models.permission import check_model_allowed, is_code_allowed
from rankmill.models.weights import weight_files
from rankmill.settings import settings
from worker.device_errors import device_errors
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.scorer import BatchRun, Scorer
from worker.liveness.heartbeat import task_heartbeat
from worker.metrics.counters import meters
from worker.null_scorer import NullScorer

log = get_logger(__name__)

_VERSIONED = ("torch", "transformers", "tokenizers", "pyarrow")


@dataclass(frozen=True)
class LoadedModel:
    scorer: Scorer | NullScorer
    scoring: Scoring


def load(spec: JobSpec) -> LoadedModel:
    """The model of a job, kept from shard to shard.

    Raises:
        ModelUnavailable: it is not here, not allowed, or cannot be loaded.
        DeviceFault, DeviceFull, MemoryShort: the device cannot take it now.
    """
    check_model_allowed(spec.model_id)
    wanted = (
        spec.model_id,
        spec.model_revision,
        spec.max_length,
        spec.max_batch_tokens,
        spec.precision,
        spec.activation,
    )
    if wanted != _held.pop("model", None):
        _free()
    loaded = _load(*wanted)
    _held["model"] = wanted
    return loaded


# Which model `_load` keeps.
_held: dict[str, tuple[object, ...]] = {}


def _free() -> None:
    """Let go of the model before another is loaded: two may not fit."""
    _load.cache_clear()
    gc.collect()  # a model holds itself, in circles
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with device_errors():
            torch.cuda.empty_cache()


@lru_cache(maxsize=1)
def _load(
    model_id: str,
    revision: str | None,
    max_length: int | None,
    max_batch_tokens: int | None,
    precision: Precision,
    activation: Activation,
) -> LoadedModel:
    if is_null_model(model_id):
        scored_by = NullScorer(null_rate(model_id))
        return _described(scored_by, _sha256([]), _sha256([]), model_id, revision, activation)
    folder = locate_model(model_id, revision)
    may_run_code = is_code_allowed(model_id)
    use_cores()
    with loading(model_id), device_errors():
        scorer = Scorer.load(
            folder,
            device=chosen_device().name,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            precision=precision,
            on_batch=_on_batch,
            may_run_code=may_run_code,
            activation=None if activation == "auto" else activation,
        )
    limit = scorer.info.max_length
    if max_length is not None and max_length > limit:
        log.warning("max_length is more than the model takes", asked=max_length, used=limit)
    weights = _sha256(weight_files(folder), folder)
    others = _sha256(setting_files(folder, with_code=may_run_code), folder)
    return _described(scorer, weights, others, model_id, revision, activation)


def _on_batch(run: BatchRun) -> None:
    task_heartbeat().beat()
    meters().batch(run)


@contextmanager
def loading(model_id: str) -> Iterator[None]:
    """Raise what the engine refuses of a model's folder as our error, in one line."""
    try:
        yield
    except UnusableFolder as error:  # it names the folder
        raise ModelUnavailable(str(error)) from error
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"{model_id}: cannot be loaded: {first_line}") from error


def _described(
    scorer: Scorer | NullScorer,
    weights_sha256: str,
    tokenizer_sha256: str,
    model_id: str,
    revision: str | None,
    activation: Activation,
) -> LoadedModel:
    info = scorer.info
    scoring = Scoring(
        model_id=model_id,
        model_revision=revision,
        weights_sha256=weights_sha256,
        tokenizer_sha256=tokenizer_sha256,
        architecture=info.architecture,
        path=info.path,
        path_reason=info.path_reason,
        precision=info.precision,
        deterministic=info.deterministic,
        device=info.device.partition(":")[0],  # on which of them does not matter to a score
        device_reason=None if is_null_model(model_id) else chosen_device().reason,
        max_length=info.max_length,
        activation=info.activation if activation == "auto" else activation,
        versions={name: version(name) for name in _VERSIONED},
    )
    return LoadedModel(scorer, scoring)


class ChosenDevice(NamedTuple):
    """`cpu`, `cuda` or `cuda:N`, and why it is that one where that needs a word."""

    name: str
    reason: str | None


def chosen_device() -> ChosenDevice:
    """As the settings say or else as the machine has it.

    Raises:
        InputError: this torch cannot be used.
    """
    check_torch()
    wanted = settings()
    if wanted.device != "auto":
        return ChosenDevice(wanted.device, wanted.device_reason)
    return _automatic_device()


@lru_cache(maxsize=1)
def _automatic_device() -> ChosenDevice:
    chosen = choose("auto", is_tried=False)
    return ChosenDevice("cuda" if chosen.gpus else "cpu", chosen.reason)


def use_cores() -> None:
    """More threads than cores cost a factor of four, so that torch's own guess is not trusted."""
    import torch

    torch.set_num_threads(settings().threads or n_usable_cores())


def _sha256(paths: list[Path], folder: Path = Path()) -> str:
    """One digest over several files, their names in the folder included."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
