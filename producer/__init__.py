"""The submitting side, and its Python calls: `from producer import rerank`.

The calls are imported when they are first asked for, so that a submodule stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.calls.job import Job, find_job
    from producer.calls.launch import run, submit, submit_spec
    from producer.calls.measuring import diff, estimate, evaluate
    from producer.calls.reranking import free_model, rerank
    from producer.inspection.comparison import compare_models
    from producer.inspection.model_check import check_model
    from producer.jobs.control import cancel, resume, retry_rejects
    from producer.jobs.handle import JobHandle
    from producer.jobs.listing import list_jobs
    from producer.jobs.status import JobStatus

__all__ = [
    "Job",
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
    "run",
    "submit",
    "submit_spec",
]

_MODULES = {
    "Job": "producer.calls.job",
    "JobHandle": "producer.jobs.handle",
    "JobStatus": "producer.jobs.status",
    "cancel": "producer.jobs.control",
    "check_model": "producer.inspection.model_check",
    "compare_models": "producer.inspection.comparison",
    "diff": "producer.calls.measuring",
    "estimate": "producer.calls.measuring",
    "evaluate": "producer.calls.measuring",
    "find_job": "producer.calls.job",
    "free_model": "producer.calls.reranking",
    "list_jobs": "producer.jobs.listing",
    "rerank": "producer.calls.reranking",
    "resume": "producer.jobs.control",
    "retry_rejects": "producer.jobs.control",
    "run": "producer.calls.launch",
    "submit": "producer.calls.launch",
    "submit_spec": "producer.calls.launch",
}

if not TYPE_CHECKING:  # a type checker must refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
