"""Cut an input into shards and fix the plan."""

from __future__ import annotations

from producer.inputs.columns import resolve_columns
from producer.inputs.source import Source
from producer.jobs.shards import shard_bounds
from rankmill.contract.job import (
    Columns,
    JobSpec,
    Plan,
    encode_schema,
)
from rankmill.tables.ids import with_id_types


def make_plan(job_id: str, spec: JobSpec, source: Source, columns: Columns | None = None) -> Plan:
    """Cut pairs that are clustered by query into shards.

    Args:
        columns: of what was prepared; else they are found.

    Raises:
        InputError: as `resolve_columns`.
    """
    columns = columns or resolve_columns(spec, source.schema)
    schema = with_id_types(source.schema, (columns.query_id, columns.doc_id))
    return Plan(
        job_id=job_id,
        files=source.files,
        arrow_schema=encode_schema(schema),
        columns=columns,
        shard_bounds=shard_bounds(source.group_rows, source.group_bytes, spec.shard_pairs),
    )
