"""The id of a job: the same spec over the same files has the same id, in every release."""

from __future__ import annotations

import hashlib

from rankmill.contract.base import Contract, Since
from rankmill.contract.job import JobSpec
from rankmill.contract.plan import InputFile

# The options of the first release are in every id, given or not, so that ids never change.
_FIRST_OPTIONS = frozenset(
    {
        *("version", "input_uri", "model_id", "model_revision", "layout", "queries", "corpus"),
        *("query_col", "document_col", "query_id_col", "doc_id_col", "keep_cols", "explode"),
        *("trec_run", "cluster", "duplicates", "damaged", "top_k", "max_length", "precision"),
        *("activation", "max_batch_tokens", "shard_pairs", "max_reject_rate", "for_reuse"),
        "output_uri",
    }
)
# Fields that change no result.
_NOT_IN_ID = frozenset({"minor", "priority", "reuse_from"})
_FIRST_FILE_FIELDS = frozenset(
    {"version", "uri", "n_rows", "size_bytes", "state", "partition", "role"}
)


def job_id_for(spec: JobSpec, files: tuple[InputFile, ...]) -> str:
    """Return a job's id; the same spec over the same files gives the same id.

    Priority and reuse do not count, since they do not change the result. Nor does a field that a
    reader may ignore. An option of a later release counts only if it differs from its default, so
    that jobs without it keep their ids.
    """
    digest = hashlib.sha256(_identifying(spec, _FIRST_OPTIONS))
    for file in files:
        digest.update(_identifying(file, _FIRST_FILE_FIELDS))
    return digest.hexdigest()[:12]


def _identifying(contract: Contract, always: frozenset[str]) -> bytes:
    """Return the JSON of the fields that an id depends on."""
    counted = set(always)
    for name, field in type(contract).model_fields.items():
        may_be_ignored = name in _NOT_IN_ID or contract.later.get(name, Since()).minor
        default = field.get_default(call_default_factory=True)
        if not may_be_ignored and getattr(contract, name) != default:
            counted.add(name)
    first = contract.model_copy(update={"version": 1})  # a later option counts by itself
    return first.model_dump_json(include=counted).encode()
