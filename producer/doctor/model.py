"""Check the models that jobs may name: they are here and can be loaded safely."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from producer.doctor.finding import Finding, ok, problem, warning
from rankmill.contract.job import JobOptions
from rankmill.errors import RankmillError
from rankmill.models.locate import locate_model
from rankmill.models.names import is_null_model
from rankmill.settings import Settings


def check_models(settings: Settings) -> Iterator[Finding]:
    """Check each model that the settings name, else the default one; fetch nothing."""
    if find_spec("huggingface_hub") is None:
        return  # this machine does not score
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is first imported
    named = settings.allowed_models
    default = str(JobOptions.model_fields["model_id"].default)
    for model_id in named or (default,):
        if is_null_model(model_id) or model_id.endswith("/*"):
            continue
        try:
            folder = locate_model(model_id)
        except RankmillError as error:
            fix = f"fetch it (rankmill models pull {model_id}), or name another model"
            missing = problem if named else warning
            yield missing(f"model {model_id}", str(error), fix)
        else:
            yield ok(f"model {model_id}", str(folder))
    for model_id in settings.remote_code_models or ():
        yield warning(
            f"model {model_id}",
            "its own Python code may run with all rights of a worker",
            "read that code and pin the revision, or take it off RANKMILL_REMOTE_CODE_MODELS",
        )
