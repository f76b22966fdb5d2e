"""Write a job's page with what a person adds to it: judgments, an earlier run, a price."""

from __future__ import annotations

from producer.quality.drift.diff import diff
from producer.quality.evaluate import evaluate
from producer.quality.qrels import read_qrels
from producer.quality.rankings import finished_job
from rankmill import storage
from rankmill.contract.job import JobSpec
from rankmill.contract.results import Manifest
from rankmill.errors import InputError
from rankmill.output.output import Output
from rankmill.report import write_report
from rankmill.report.extras import Compared, Extras, Judged
from rankmill.wrong_value import check_positive


def write_page(
    output: Output,
    *,
    qrels: str | None = None,
    compare: Output | None = None,
    price_per_hour: float | None = None,
) -> str:
    """Write the page of a job again, and return its URI.

    Args:
        output: of the job; finished, if `qrels` or `compare` is given.
        qrels: a file of judgments, for nDCG, MRR and recall before and after.
        compare: the output of an earlier finished job, to show both side by side.
        price_per_hour: of a device, for the cost.

    Raises:
        InputError: a job is not finished or not comparable, or the judgments or the price
            cannot be used.
        JobUnknown: no job was submitted there.
    """
    check_positive("--price-per-hour", price_per_hour)
    extras = Extras(
        judged=None if qrels is None else _judged(output, qrels),
        compared=None if compare is None else _compared(compare, output),
        price_per_hour=price_per_hour,
    )
    return write_report(output, extras=extras)


def _judged(output: Output, qrels: str) -> Judged:
    found = evaluate(output, read_qrels(qrels))
    return Judged(
        qrels_uri=storage.absolute(qrels),
        n_queries=found.n_queries,
        top_k=found.top_k,
        too_deep=found.too_deep,
        comparisons=found.comparisons,
    )


def _compared(old: Output, new: Output) -> Compared:
    """Put two finished jobs side by side: their facts, and the drift of their rankings."""
    if old.uri == new.uri:
        raise InputError(f"--compare {old.uri}: is the job of the page; name another job's output")
    before, now = _facts(old), _facts(new)
    names = dict.fromkeys([*before, *now])
    sides = [(name, before.get(name, ""), now.get(name, "")) for name in names]
    return Compared(
        drift=diff(old, new),
        differing=[each for each in sides if each[1] != each[2]],
        equal=[(name, value) for name, value, other in sides if value == other],
    )


def _facts(output: Output) -> dict[str, str]:
    """Return the names and values of a finished job's facts."""
    finished_job(output)
    manifest = output.read_manifest()
    if manifest is None:
        raise InputError(f"{output.uri}: has no manifest; a side-by-side page needs it")
    rate = manifest.n_rows / manifest.scoring_s if manifest.scoring_s else 0.0
    counts = ("n_rows", "n_scored", "n_rejected", "n_query_groups", "n_truncated", "n_tokens")
    return {
        "job": manifest.job_id,
        "output": output.uri,
        **_options(manifest.spec),
        **_scoring(manifest),
        **{name.removeprefix("n_"): f"{getattr(manifest, name):,}" for name in counts},
        "device seconds": f"{manifest.scoring_s:,.1f}",
        "pairs/s of a device": f"{rate:,.0f}",
    }


def _options(spec: JobSpec) -> dict[str, str]:
    """Return the options that have another value than their default, and always the main ones."""
    main = {"input_uri", "model_id", "top_k"}
    options = spec.model_dump(exclude={"output_uri", "version", "minor"})
    return {
        name: str(value)
        for name, value in options.items()
        if name in main or value != JobSpec.model_fields[name].default
    }


def _scoring(manifest: Manifest) -> dict[str, str]:
    facts: dict[str, set[str]] = {}
    for each in manifest.scoring:
        for name, value in {
            "weights": each.weights_sha256[:16],
            "tokenizer": each.tokenizer_sha256[:16],
            "architecture": each.architecture,
            "engine": f"{each.path} {each.precision} on {each.device}",
            "longest pair": f"{each.max_length:,} tokens",
            "activation used": each.activation,
            "versions": ", ".join(f"{n} {v}" for n, v in each.versions.items()),
        }.items():
            facts.setdefault(name, set()).add(value)
    return {name: "; ".join(sorted(values)) for name, values in facts.items()}
