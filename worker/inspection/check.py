"""Check one model on this machine: load it as a shard does, score, and compare.

Run as `python -m worker.inspection.check` with a CheckRequest on stdin. It prints a ModelCheck, or
one line with the error, and exits with the error's code.
"""

from __future__ import annotations

import resource
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rankmill.contract.base import parse
from rankmill.contract.inspection import CheckRequest, ModelCheck, Parity
from rankmill.contract.job import JobSpec
from rankmill.contract.results import Agreement
from rankmill.errors import RankmillError
from rankmill.models.locate import locate_model
from rankmill.models.names import is_built_in_model, is_model_folder
from rankmill.models.permission import is_code_allowed
from rankmill.models.store import model_store
from worker.device_errors import device_errors
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow
from worker.estimate import LengthOrder, calibrate
from worker.inspection.card import license_of
from worker.inspection.parity import NoParity, check_comparable, parity
from worker.inspection.sample_pairs import sample_pairs
from worker.models import LoadedModel, chosen_device, load, release

# Variants of the sample to measure the speed with: a window of a job has about as many pairs.
_N_VARIANTS = 32


def main() -> None:
    """Answer one request."""
    request = parse(CheckRequest, sys.stdin.buffer.read(), "check")
    try:
        with redirect_stdout(sys.stderr), device_errors():  # libraries print
            checked = check(request)
    except RankmillError as error:
        print(error)
        sys.exit(error.exit_code)
    print(checked.model_dump_json())


def check(request: CheckRequest) -> ModelCheck:
    """Load the model in the precision of the request, score the sample, and compare it in fp32.

    Raises:
        ModelUnavailable: the model cannot be loaded.
    """
    spec, window = request.spec, sample_pairs()
    folder = locate_model(spec.model_id, spec.model_revision)
    loaded = load(spec)
    scorer = loaded.scorer
    assert isinstance(scorer, Scorer)  # the spec asks for nothing around it
    (scores,) = scorer.score([window])
    calibration = None
    if request.calibrate_s:
        calibration = calibrate(scorer, _order(scores.n_tokens), request.calibrate_s)
    memory_bytes, name = _memory(loaded)
    agreement = None
    if loaded.scoring.precision != "fp32":
        found = scorer.agreement(window)
        agreement = Agreement(precision=loaded.scoring.precision, **asdict(found))
    same, no_parity = None, "not wanted"
    if request.compares:
        try:
            same, no_parity = _parity(spec, folder, loaded, scores.logits), ""
        except (NoParity, RankmillError) as error:
            no_parity = str(error)
    return ModelCheck(
        folder=str(folder),
        license=license_of(folder) or _pulled_license(spec),
        scoring=loaded.scoring,
        memory_bytes=memory_bytes,
        device_name=name,
        calibration=calibration,
        agreement=agreement,
        parity=same,
        no_parity=no_parity,
    )


def _pulled_license(spec: JobSpec) -> str | None:
    """Return the license that the hub named when the model was pulled."""
    if is_built_in_model(spec.model_id) or is_model_folder(spec.model_id):
        return None
    kept = model_store()
    model = kept.read(spec.model_id) if kept is not None else None
    commit = model.resolve(spec.model_revision) if model is not None else None
    return commit.license if commit is not None else None


def _order(n_tokens: np.ndarray) -> LengthOrder:
    """Return many variants of the sample, shortest first."""
    order = np.argsort(n_tokens, kind="stable")
    variants = [sample_pairs(number) for number in range(_N_VARIANTS)]
    pairs = [(each.queries[at], each.documents[at]) for at in order for each in variants]
    queries, documents = zip(*pairs, strict=True)
    lengths = np.repeat(n_tokens[order].astype(np.int64), _N_VARIANTS)
    return LengthOrder(np.cumsum(lengths), PairWindow(list(queries), list(documents)))


def _memory(loaded: LoadedModel) -> tuple[int, str]:
    """Return the peak of memory so far, in bytes, and the name of the device that it is of."""
    import torch

    device = loaded.scorer.info.device
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device), torch.cuda.get_device_name(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, device


def _parity(spec: JobSpec, folder: Path, loaded: LoadedModel, logits: np.ndarray) -> Parity:
    """Compare the logits with the peer's; in another precision than fp32, score again in fp32."""
    check_comparable()
    if loaded.scoring.recipe is not None:
        raise NoParity(f"CrossEncoder does not know recipe {loaded.scoring.recipe}")
    if loaded.scoring.precision != "fp32":
        exact = load(spec.model_copy(update={"precision": "fp32"}))
        (scores,) = exact.scorer.score([sample_pairs()])
        logits = scores.logits
        del exact
    release()  # two models may not fit
    return parity(
        folder,
        sample_pairs(),
        logits,
        activation=loaded.scoring.activation,
        device=chosen_device().name,
        may_run_code=is_code_allowed(spec.model_id),
    )


if __name__ == "__main__":
    main()
