"""The commands that a reader of the page may want next, ready to copy."""

from __future__ import annotations

from shlex import quote

from rankmill.contract.job_state import JobState
from rankmill.contract.plan import Plan
from rankmill.report.gather import JobFacts

# The place is an argument, so that its quotes are the shell's alone.
_HEAD = (
    "import sys, pyarrow.dataset as ds; "
    'print(*ds.dataset(sys.argv[1]).head(10).to_pylist(), sep="\\n")'
)


def next_commands(facts: JobFacts) -> list[tuple[str, str]]:
    """Return a purpose and a command for each; they paste into bash as they are.

    Only JUDGMENTS, where a page has none, is for a reader to fill in.
    """
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
    commands = [("read the first rows", f"python -c {quote(_HEAD)} {output}")]
    if facts.tally.totals["n_rejected"]:
        commands.append(("score the rejected rows again", f"rankmill retry-rejects {output}"))
    judged = facts.extras.judged
    commands += result_commands(uri, facts.plan, judged.qrels_uri if judged else None)
    if facts.drift is not None:
        old = quote(facts.drift.old.output_uri)
        commands.append(("compare it again", f"rankmill diff {old} {output}"))
    return [*commands, ("write this page again", f"rankmill report {output}{_options(facts)}")]


def _options(facts: JobFacts) -> str:
    """Return the options that this page was written with; the next has only those it is given."""
    extras = facts.extras
    given = {
        "--qrels": extras.judged and extras.judged.qrels_uri,
        "--compare": extras.compared and extras.compared.drift.old.output_uri,
        "--price-per-hour": extras.price_per_hour and f"{extras.price_per_hour:g}",
    }
    return "".join(f" {flag} {quote(value)}" for flag, value in given.items() if value)


def result_commands(uri: str, plan: Plan | None, qrels: str | None = None) -> list[tuple[str, str]]:
    """Return a purpose and a command for each use of a finished result.

    Args:
        uri: the output.
        plan: of its job. Judgments and a run name pairs by ids, which the result must have.
        qrels: the judgments; the word JUDGMENTS where there are none.
    """
    columns = plan.columns if plan is not None else None
    if columns is None or not {columns.query_id, columns.doc_id} <= columns.kept.keys():
        return [("write it as lines of JSON", f"rankmill export {quote(uri)} --to jsonl")]
    measure = "measure it by judgments" if qrels is None else "measure it again"
    judgments = "JUDGMENTS" if qrels is None else quote(qrels)
    return [
        (measure, f"rankmill eval {quote(uri)} --qrels {judgments}"),
        ("write it as a TREC run", f"rankmill export {quote(uri)} --to trec"),
    ]
