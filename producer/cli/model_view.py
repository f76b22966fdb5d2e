"""The views of `rankmill models`: the stored models, and the facts of a check."""

from __future__ import annotations

from textwrap import fill

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import facts_text
from producer.inspection.stored_models import ListedModel
from rankmill.contract.inspection import ModelCheck, Parity

_VALUE_COLUMNS = 68


def stored_table(models: list[ListedModel]) -> Table:
    """Return a line for each commit; a column is as wide as its longest value."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "revision", "commit", "size", "path", "length", "license", "pulled"):
        is_number = name in ("size", "length")
        table.add_column(name, no_wrap=True, justify="right" if is_number else "left")
    for model in models:
        table.add_row(
            model.model_id,
            ",".join([*model.revisions, *(["pinned"] if model.is_pinned else [])]) or "-",
            model.commit[:12],
            decimal(model.n_bytes),
            "refused" if model.refused else model.path or "unknown",
            f"{model.max_length:,}" if model.max_length else "-",
            model.license or "-",
            f"{model.pulled_at:%Y-%m-%d %H:%M}" if model.pulled_at else "-",
        )
    return table


def check_facts(checked: ModelCheck) -> Text:
    """Return a line for each fact of a checked model."""
    scoring = checked.scoring
    reason = f": {scoring.path_reason}" if scoring.path_reason else ""
    facts = [
        ("model", f"{scoring.model_id}, loaded as {scoring.architecture}"),
        ("license", checked.license or "not stated: the folder has no README.md that names one"),
        ("path", scoring.path + reason),
        ("precision", _precision(checked)),
        ("recipe", scoring.recipe or "the folder's own"),
        ("length", f"at most {scoring.max_length:,} tokens a pair"),
        ("scores", "sigmoid of the logit" if scoring.activation == "sigmoid" else "the logit"),
        ("memory", f"{decimal(checked.memory_bytes)} at the peak"),
        ("speed", _speed(checked)),
        ("parity", _parity(checked.parity, checked.no_parity)),
    ]
    wrapped = [(name, fill(value, _VALUE_COLUMNS)) for name, value in facts]
    return facts_text([*wrapped[:1], ("folder", checked.folder), *wrapped[1:]])


def _precision(checked: ModelCheck) -> str:
    found = checked.agreement
    text = f"{checked.scoring.precision} on {checked.device_name}"
    if found is None:
        return text
    return (
        f"{text}; against fp32 on {found.n_pairs} pairs: tau {found.kendall_tau:.3f}, largest "
        f"logit difference {found.max_difference:.2g}"
    )


def _speed(checked: ModelCheck) -> str:
    found = checked.calibration
    if found is None:
        return "not measured"
    mean = found.n_tokens / found.n_pairs
    return (
        f"{found.n_pairs / found.seconds:,.0f} pairs/s of {mean:,.0f} tokens, "
        f"{found.tokens_per_s:,.0f} tokens/s"
    )


def _parity(parity: Parity | None, no_parity: str) -> str:
    if parity is None:
        return f"not checked: {no_parity}"
    return (
        f"{'equal to' if parity.is_equal else 'DIFFERS from'} CrossEncoder of "
        f"sentence-transformers {parity.peer} in fp32 on {parity.n_pairs} pairs: largest logit "
        f"difference {parity.max_difference:.2g}, tau {parity.kendall_tau:.3f}"
    )
