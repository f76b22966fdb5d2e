"""The model that a worker holds, one at a time, with the exact fingerprint of its files."""

from __future__ import annotations

import gc
import hashlib
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rankmill.contract.job import JobOptions, JobSpec
from rankmill.contract.results import Scoring
from rankmill.devices.choice import check_torch, choose
from rankmill.devices.cores import n_usable_cores
from rankmill.errors import InputError, ModelUnavailable
from rankmill.logs import get_logger
from rankmill.models.folder_files import setting_files
from rankmill.models.locate import is_in_hub_cache, locate_model
from rankmill.models.names import is_null_model, null_rate
from rankmill.models.permission import check_model_allowed, is_code_allowed
from rankmill.models.recipes import recipe_for
from rankmill.models.scoring_settings import check_passage_lengths
from rankmill.models.weights import weight_files
from rankmill.settings import settings
from worker.device_errors import device_errors
from worker.engine.folder.refusal import UnusableFolder, UnusableOption
from worker.engine.passages.limits import TextLimits
from worker.engine.passages.passage_scorer import PassageScorer
from worker.engine.scorer import BatchRun, Scorer
from worker.fit import fitting
from worker.liveness.heartbeat import task_heartbeat
from worker.metrics.counters import meters
from worker.null_scorer import NullScorer

log = get_logger(__name__)

_choose_once = lru_cache(maxsize=1)(choose)

_HASHED_BYTES = 8 * 2**20

_VERSIONED = ("torch", "transformers", "tokenizers", "pyarrow")


AnyScorer = Scorer | PassageScorer | NullScorer


@dataclass(frozen=True)
class LoadedModel:
    """A scorer, and how it scores as shard reports and the manifest record it."""

    scorer: AnyScorer
    scoring: Scoring


@dataclass(frozen=True)
class _Held:
    """The model in memory.

    Attributes:
        files: its folder, and the names, sizes and times of its files when it was loaded.
        scorers: by the options that need no other weights, all over the same weights.
        jobs: the last jobs that were scored with these weights.
    """

    files: tuple[object, ...]
    scorers: dict[tuple[object, ...], LoadedModel] = field(default_factory=dict)
    jobs: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_JOBS))


# The loaded weights, by the options that decide them; one entry at most.
_held: dict[tuple[object, ...], _Held] = {}

# The options of a scorer that need no other weights.
_WITHOUT_WEIGHTS = (
    *("max_length", "max_batch_tokens", "activation", "prompt", "prompt_col", "chat_template"),
    *("input_template", "query_prefix", "document_prefix"),
)

_MOST_JOBS = 100

# The most scorers over the loaded weights; each takes little memory of its own.
_MOST_SCORERS = 8


def load(spec: JobSpec, job: str | None = None) -> LoadedModel:
    """Return the model of a job; its weights are kept until a shard needs others.

    Jobs that differ only in lengths, activation, prompts or templates share them.

    Args:
        spec: the job's options.
        job: names a job that keeps the weights that it began with, even if the model's files are
            replaced meanwhile; None looks for other files each time.

    Raises:
        ModelUnavailable: it is not here, not allowed, or cannot be loaded.
        DeviceFault, DeviceFull, MemoryShort: the device cannot take it now.
        HostUnfit: it never fits into this GPU.
    """
    check_model_allowed(spec.model_id)
    may_run_code, weights = is_code_allowed(spec.model_id), weights_of(spec)
    options = (*(getattr(spec, name) for name in _WITHOUT_WEIGHTS), limits_of(spec))
    if any(each.scorer.have_weights_changed() for each in _scorers(weights)):
        release()
    held = _held.get(weights)
    if held is not None and options in held.scorers and _is_current(held, spec, job):
        _note(held, job)
        return held.scorers[options]
    # A large model on slow storage loads for many minutes, and reports no progress.
    with task_heartbeat().beat_in_background(settings().load_s):
        folder = _folder(spec)
        files = _files(folder, may_run_code)
        if weights not in _held or _held[weights].files != files:
            release()
            _held[weights] = _Held(files)
        scorers = _held[weights].scorers
        try:
            loaded = _load(spec, folder, next(iter(scorers.values()), None))
        except BaseException:
            release()  # the next try has the whole device
            raise
        if len(scorers) >= _MOST_SCORERS:
            del scorers[next(iter(scorers))]
        scorers[options] = loaded
        _note(_held[weights], job)
    return loaded


def _note(held: _Held, job: str | None) -> None:
    if job is not None and job not in held.jobs:
        held.jobs.append(job)


def _is_current(held: _Held, spec: JobSpec, job: str | None) -> bool:
    """Return whether a job is scored with the files that were loaded: those of its first shard.

    Somebody may have put others in their place since, or pulled and pinned another commit.
    """
    # Those of the hub's cache never change, and a search may use the network.
    if job in held.jobs or is_in_hub_cache(spec.model_id):
        return True
    return _files(_folder(spec), is_code_allowed(spec.model_id)) == held.files


def _scorers(weights: tuple[object, ...]) -> list[LoadedModel]:
    return list(_held[weights].scorers.values()) if weights in _held else []


def weights_of(spec: JobSpec) -> tuple[object, ...]:
    """Return the options of a job that decide which weights it needs."""
    may_run_code = is_code_allowed(spec.model_id)
    # A language model keeps the rows of its answer tokens alone, and not every model is loaded
    # without a template, or with a prompt.
    answers = (spec.yes_token, spec.no_token)
    has_prompt = spec.prompt is not None or spec.prompt_col is not None
    return (
        *(spec.model_id, spec.model_revision, spec.precision, may_run_code),
        *(*answers, spec.has_template, has_prompt),
    )


def held_weights() -> tuple[object, ...] | None:
    """Return the options of the weights in memory, or None."""
    return next(iter(_held), None)


def release() -> None:
    """Free the model and its memory, since two models may not fit."""
    _held.clear()
    gc.collect()  # a model holds itself, in circles
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with device_errors():
            torch.cuda.empty_cache()


def _folder(spec: JobSpec) -> Path | None:
    """Return the model's folder, checked; None for the null model."""
    if is_null_model(spec.model_id):
        return None
    return locate_model(spec.model_id, spec.model_revision, has_template=spec.has_template)


def _files(folder: Path | None, may_run_code: bool) -> tuple[object, ...]:
    if folder is None:
        return ()
    paths = [*weight_files(folder), *setting_files(folder, with_code=may_run_code)]
    with loading(str(folder)):
        states = [(path, path.stat()) for path in paths]
    return (folder, *((path, state.st_size, state.st_mtime_ns) for path, state in states))


def _load(spec: JobSpec, folder: Path | None, other: LoadedModel | None) -> LoadedModel:
    """Return a scorer over the weights of another one, or load them if there is none."""
    if folder is None:
        if spec.has_passages:
            raise InputError(
                f"--long-docs {spec.long_docs}: --model {spec.model_id} has no tokens to cut; "
                "leave one of them out"
            )
        if other is None:
            _note_loaded(spec)
        null = NullScorer(null_rate(spec.model_id))
        return LoadedModel(null, _scoring(null, spec, _sha256([]), _sha256([])))
    if other is not None:
        scorer = _scorer(spec, folder, other)
        digests = other.scoring.weights_sha256, other.scoring.tokenizer_sha256
        return LoadedModel(scorer, _scoring(scorer, spec, *digests))
    with ThreadPoolExecutor(1, "sha256") as thread:  # another core reads the files meanwhile
        hashing = thread.submit(_digests, folder, is_code_allowed(spec.model_id))
        scorer = _scorer(spec, folder, None)
        _note_loaded(spec)
        return LoadedModel(scorer, _scoring(scorer, spec, *hashing.result()))


def _note_loaded(spec: JobSpec) -> None:
    meters().loaded()
    log.info("model loaded", model_id=spec.model_id)


def _digests(folder: Path, may_run_code: bool) -> tuple[str, str]:
    """Return the digests of the weights and of the other files that decide a score."""
    others = setting_files(folder, with_code=may_run_code)
    return _sha256(weight_files(folder), folder), _sha256(others, folder)


def limits_of(options: JobOptions) -> TextLimits:
    """Return the cuts of texts that a job asks for, besides its max_length."""
    return TextLimits(
        long_docs=options.long_docs,
        passage_tokens=options.passage_tokens,
        passage_stride=options.passage_stride,
        max_query_tokens=options.max_query_tokens,
        max_document_tokens=options.max_document_tokens,
    )


def _scorer(spec: JobSpec, folder: Path, other: LoadedModel | None) -> Scorer | PassageScorer:
    options: dict[str, Any] = {
        "max_length": spec.max_length,
        "max_batch_tokens": spec.max_batch_tokens,
        "activation": None if spec.activation == "auto" else spec.activation,
        "recipe": recipe_for(folder, spec),
    }

    def on_batch(run: BatchRun) -> None:
        task_heartbeat().beat()
        meters().batch(run)

    with loading(spec.model_id), device_errors():
        if other is not None and not isinstance(other.scorer, NullScorer):
            over = other.scorer
            over = over.scorer if isinstance(over, PassageScorer) else over
            scorer = over.with_settings(**options)
        else:
            use_cores()
            device = chosen_device().name
            use_fused_kernels()
            with fitting(spec, folder, device):
                scorer = Scorer.load(
                    folder,
                    device=device,
                    precision=spec.precision,
                    on_batch=on_batch,
                    may_run_code=is_code_allowed(spec.model_id),
                    **options,
                )
    limit = scorer.info.max_length
    if spec.max_length is not None and spec.max_length > limit:
        log.warning("max_length is more than the model takes", asked=spec.max_length, used=limit)
    check_passage_lengths(spec, limit)
    limits = limits_of(spec)
    if limits == TextLimits():
        return scorer
    with loading(spec.model_id):
        return PassageScorer(scorer, limits)


@contextmanager
def loading(model_id: str) -> Iterator[None]:
    """Raise the engine's refusals of a folder or of an option for it, in one line."""
    try:
        yield
    except UnusableOption as error:
        raise InputError(str(error)) from error
    except UnusableFolder as error:  # it names the folder
        raise ModelUnavailable(str(error)) from error
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"{model_id}: cannot be loaded: {first_line}") from error


def _scoring(
    scorer: AnyScorer, spec: JobSpec, weights_sha256: str, tokenizer_sha256: str
) -> Scoring:
    info = scorer.info
    return Scoring(
        model_id=spec.model_id,
        model_revision=spec.model_revision,
        weights_sha256=weights_sha256,
        tokenizer_sha256=tokenizer_sha256,
        architecture=info.architecture,
        path=info.path,
        path_reason=info.path_reason,
        precision=info.precision,
        deterministic=info.deterministic,
        device=info.device.partition(":")[0],  # which of several does not matter to a score
        device_reason=None if is_null_model(spec.model_id) else chosen_device().reason,
        max_length=info.max_length,
        activation=info.activation if spec.activation == "auto" else spec.activation,
        recipe=info.recipe,
        recipe_sha256=info.recipe_sha256,
        prompt=info.prompt,
        versions={name: version(name) for name in _VERSIONED} | {"kernels": info.kernels},
    )


class ChosenDevice(NamedTuple):
    """`cpu`, `cuda` or `cuda:N`; the reason is given if `auto` had to pass over a GPU."""

    name: str
    reason: str | None


def chosen_device() -> ChosenDevice:
    """Return the device of the settings; for `auto` a GPU if one can be used.

    Raises:
        InputError: the installed torch cannot be used.
    """
    check_torch()
    wanted = settings()
    if wanted.device != "auto":
        return ChosenDevice(wanted.device, wanted.device_reason)
    chosen = _choose_once("auto", is_tried=False)
    return ChosenDevice("cuda" if chosen.gpus else "cpu", chosen.reason)


def use_cores() -> None:
    """Set torch's threads to RANKMILL_THREADS, or to the cores that this process may use.

    More threads than cores cost a factor of four, and torch counts cores that it may not use.
    """
    import torch

    torch.set_num_threads(settings().threads or n_usable_cores())


def use_fused_kernels() -> None:
    """Switch the engine's fused kernels as RANKMILL_FUSED says; they are for GPUs only.

    Raises:
        InputError: this host cannot compile them.
    """
    from worker.engine.kernels.fused_kernels import fuse_on

    try:
        fuse_on(*(["cuda"] if settings().fused == "on" else []))
    except ValueError as error:
        raise InputError(str(error)) from error


def _sha256(paths: list[Path], folder: Path = Path()) -> str:
    """Return one digest over the names and contents of several files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(_content_sha256(path))
    return digest.hexdigest()


def _content_sha256(path: Path) -> bytes:
    """Return the digest of a file, read in large pieces so that other threads can run."""
    digest, piece = hashlib.sha256(), bytearray(_HASHED_BYTES)
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(piece):
            digest.update(memoryview(piece)[:n_bytes])
    return digest.digest()
