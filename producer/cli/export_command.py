"""`rankmill export`: write a finished job's result in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.cli.console import say
from producer.cli.fact_lines import count_text
from producer.cli.options import JobArgument, JsonFlag
from producer.jobs.handle import find_job
from rankmill.errors import InputError

_TRAINING = "Training data"


def export_job(
    job: JobArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="jsonl, csv, trec, msmarco, st-triplets or st-scores", metavar="FORMAT"
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="File on disk or s3://", show_default="OUTPUT with the format's suffix"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file")] = False,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ranks to use, from the first",
            show_default="all",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    positives: Annotated[
        int, typer.Option(min=1, help="Ranks to take as positives", rich_help_panel=_TRAINING)
    ] = 1,
    negatives: Annotated[
        int, typer.Option(min=1, help="Negatives of each positive", rich_help_panel=_TRAINING)
    ] = 5,
    margin: Annotated[
        float,
        typer.Option(
            min=0, help="Minimum difference to a negative's logit", rich_help_panel=_TRAINING
        ),
    ] = 0.0,
    label: Annotated[
        str,
        typer.Option(help="Label of st-scores: score or logit", rich_help_panel=_TRAINING),
    ] = "score",
    qrels: Annotated[
        str | None,
        typer.Option(
            help="Judgments that choose positives", show_default="none", rich_help_panel=_TRAINING
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the result in another format.

    Lines for tools, or training data with margins and hard negatives. Prints the file's name.
    """
    from producer.export.exporting import FORMATS, export
    from producer.export.training import Choice
    from producer.quality.qrels import read_qrels

    known = {name: name for name in FORMATS}
    if to not in known:
        raise InputError(f"--to {to}: give one of {', '.join(FORMATS)}")
    if label not in ("score", "logit"):
        raise InputError(f"--label {label}: give score or logit")
    choice = Choice(
        top=top,
        n_positives=positives,
        n_negatives=negatives,
        margin=margin,
        label="logit" if label == "logit" else "score",
        qrels=read_qrels(qrels) if qrels else None,
    )
    if not to.startswith("st-") and choice != Choice():
        raise InputError(
            f"--to {to} writes every row; --top, --positives, --negatives, --margin, --label and "
            "--qrels are for st-triplets and st-scores"
        )
    done = export(find_job(job).output, known[to], out, choice, overwrite=overwrite)
    if as_json:
        print(done.model_dump_json())
        return
    without = (
        f"; {done.n_without:,} of {done.n_queries:,} queries give none" if done.n_without else ""
    )
    say(f"{count_text(done.n_rows, 'row')}{without}")
    print(done.file_uri)
