"""Check a model on this machine before a job needs it. Writes nothing.

from producer import check_model

found = check_model("BAAI/bge-reranker-v2-m3")
print(found.scoring.path, found.parity)
"""

from __future__ import annotations

from importlib.util import find_spec

from producer.cluster.local import devices
from producer.estimates.engine import ask
from rankmill.contract.base import parse
from rankmill.contract.inspection import CheckRequest, ModelCheck
from rankmill.contract.job import JobSpec, Precision
from rankmill.errors import InputError
from rankmill.models.locate import locate_model
from rankmill.models.names import absolute_model, is_null_model
from rankmill.settings import settings

_CALIBRATE_S = 3.0
_UNUSED = "unused"  # a check reads no input and writes no output


def check_model(
    model_id: str,
    revision: str | None = None,
    *,
    precision: Precision = "auto",
    calibrate: bool = True,
    compares: bool = True,
) -> ModelCheck:
    """Load a model as a worker does, score 64 built-in pairs, and compare with CrossEncoder.

    Args:
        model_id: a hub id, a folder, or demo.
        revision: a commit, a branch or a tag.
        precision: as the job option.
        calibrate: measure the speed, for about three seconds.
        compares: compare with Sentence Transformers, where that is installed.

    Raises:
        InputError: the model or the precision is refused, or torch is not installed.
        RankmillError: the device failed.
    """
    if is_null_model(model_id):
        raise InputError(f"{model_id} scores nothing, so there is nothing to check; name a model")
    locate_model(model_id, revision)
    if find_spec("torch") is None:
        raise InputError("a check needs torch: pip install 'rankmill[worker]'")
    model_id = absolute_model(model_id)
    spec = JobSpec(
        input_uri=_UNUSED,
        output_uri=_UNUSED,
        model_id=model_id,
        model_revision=revision,
        precision=precision,
    )
    request = CheckRequest(
        spec=spec, calibrate_s=_CALIBRATE_S if calibrate else 0, compares=compares
    )
    device, *_ = devices(settings().device)
    module = "worker.inspection.check"
    return parse(ModelCheck, ask(module, request.to_json(), device), module)
