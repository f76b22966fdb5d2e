"""Compute from the shards' reports when a job was scored."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from rankmill.contract.results import ShardReport, Times
from rankmill.spans import covered_s


def scoring_times(job_id: str, reports: Iterable[ShardReport]) -> Times | None:
    """Return when shards ran; None without shards, or if release 0.1 ran one."""
    spans = []
    for report in reports:
        if report.finished_at is None:
            return None
        begin = report.finished_at - timedelta(seconds=report.wall_s)
        spans.append((begin, report.finished_at))
    if not spans:
        return None
    return Times(
        job_id=job_id,
        started_at=min(begin for begin, _ in spans),
        ended_at=max(end for _, end in spans),
        covered_s=covered_s((begin.timestamp(), end.timestamp()) for begin, end in spans),
    )
