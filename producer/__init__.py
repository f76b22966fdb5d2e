"""The submitting side, and its Python calls: `from producer import submit`.

The calls are imported when they are first asked for, so that a submodule stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.calls.reranking import free_model, rerank
    from producer.estimates.estimate import estimate
    from producer.inspection.comparison import compare_models
    from producer.inspection.model_check import check_model
    from producer.jobs.control import cancel, resume, retry_rejects
    from producer.jobs.handle import JobHandle, find_job
    from producer.jobs.listing import list_jobs
    from producer.jobs.status import JobStatus
    from producer.jobs.submit import submit, submit_spec
    from producer.quality.drift.diff import diff
    from producer.quality.evaluate import evaluate

__all__ = [
    "JobHandle",
    "JobStatus",
    "cancel",
    "check_model",
    "compare_models",
    "diff",
    "estimate",
    "evaluate",
    "find_job",
    "free_model",
    "list_jobs",
    "rerank",
    "resume",
    "retry_rejects",
    "submit",
    "submit_spec",
]

_MODULES = {
    "JobHandle": "producer.jobs.handle",
    "JobStatus": "producer.jobs.status",
    "cancel": "producer.jobs.control",
    "check_model": "producer.inspection.model_check",
    "compare_models": "producer.inspection.comparison",
    "diff": "producer.quality.drift.diff",
    "estimate": "producer.estimates.estimate",
    "evaluate": "producer.quality.evaluate",
    "find_job": "producer.jobs.handle",
    "free_model": "producer.calls.reranking",
    "list_jobs": "producer.jobs.listing",
    "rerank": "producer.calls.reranking",
    "resume": "producer.jobs.control",
    "retry_rejects": "producer.jobs.control",
    "submit": "producer.jobs.submit",
    "submit_spec": "producer.jobs.submit",
}

if not TYPE_CHECKING:  # a type checker must refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
