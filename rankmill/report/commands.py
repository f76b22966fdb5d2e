"""The commands that a reader of the page may want next, ready to copy."""

from __future__ import annotations

from shlex import quote

from rankmill.contract.job_state import JobState
from rankmill.report.gather import JobFacts

_HEAD = "import pyarrow.parquet as pq; print(pq.read_table({uri!r}).slice(0, 10))"


def next_commands(facts: JobFacts) -> list[tuple[str, str]]:
    """Return a purpose and a command for each; all run as they are, without placeholders."""
    uri = facts.output_uri
    output = quote(uri)
    if facts.state is JobState.FAILED or facts.state is JobState.CANCELLED:
        return [
            ("continue it; finished shards are kept", f"rankmill resume {output}"),
            ("show its state", f"rankmill status {output}"),
        ]
    if not facts.state.is_success:
        return [
            ("follow it", f"rankmill watch {output}"),
            ("write this page again", f"rankmill report {output}"),
        ]
    commands = [("read the first rows", f"python -c {quote(_HEAD.format(uri=uri))}")]
    if facts.tally.totals["n_rejected"]:
        commands.append(("score the rejected rows again", f"rankmill retry-rejects {output}"))
    if facts.extras.judged is not None:
        qrels = quote(facts.extras.judged.qrels_uri)
        commands.append(("measure it again", f"rankmill eval {output} --qrels {qrels}"))
    if facts.drift is not None:
        old = quote(facts.drift.old.output_uri)
        commands.append(("compare it again", f"rankmill diff {old} {output}"))
    return [*commands, ("write this page again", f"rankmill report {output}")]
