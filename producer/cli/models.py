"""`rankmill models`: fetch, convert, list, check, compare and verify models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from producer.cli.comparing import compare
from producer.cli.console import Console, print_table, stderr, warn
from producer.cli.help import PanelCommand, example
from producer.cli.model_view import check_facts, stored_table
from producer.cli.options import DeviceFlag, JsonFlag
from producer.conversion import convert_folder, copy_model
from producer.inspection.model_check import check_model
from producer.inspection.stored_models import stored_models
from producer.pull import pull, store
from rankmill.contract.job import Precision
from rankmill.errors import GateFailed, InputError, ModelUnavailable
from rankmill.models.names import is_model_folder
from rankmill.models.store import how_to_pull

app = typer.Typer(
    help="Manage the model store.\n\nThe store is the folder RANKMILL_MODELS.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("pull", epilog=example("models pull BAAI/bge-reranker-v2-m3"))
def pull_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hub id, such as BAAI/bge-reranker-v2-m3")
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit", show_default="main")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a model and pin its commit.

    Checks the files against the hub's digests.
    """
    pulled = pull(model, revision)
    facts = {
        "model_id": model,
        "commit": pulled.stored.commit,
        "n_bytes": pulled.stored.n_bytes,
        "folder": str(pulled.folder),
    }
    if as_json:
        print(json.dumps(facts))
    else:
        print(f"{model} {pulled.stored.commit} {decimal(pulled.stored.n_bytes)} {pulled.folder}")


@app.command("convert", epilog=example("models convert castorini/monot5-base-msmarco"))
def convert_model(
    model: Annotated[str, typer.Argument(metavar="FOLDER_OR_MODEL", help="Model folder or hub id")],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[OUT]", help="Folder for the result", show_default="in place"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub id", show_default="main")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn pickled weights into safetensors.

    Also makes a tokenizer.json if there is none. A separate process reads only tensors, and
    loads the result. A hub id is fetched into the model store first.
    """
    if is_model_folder(model):
        if revision is not None:
            raise InputError(f"--revision {revision}: {model} is a folder, which has no revisions")
        converted = convert_folder(Path(model), out, force=force)
        facts = {"folder": str(converted.folder), "files": list(converted.files)}
    else:
        if force and out is None:
            raise InputError(
                f"--force: {model} is a hub id, whose files in the model store are checked; leave "
                "it out, or give OUT"
            )
        pulled = pull(model, revision, pickled=True)
        folder = (
            pulled.folder if out is None else copy_model(pulled.folder, out, force=force).folder
        )
        facts = {"folder": str(folder), "files": [each.name for each in pulled.stored.files]}
    if as_json:
        print(json.dumps(facts))
    else:
        print(f"{facts['folder']}: {', '.join(facts['files'])}")


@app.command("list", epilog=example("models list"))
def list_models(as_json: JsonFlag = False) -> None:
    """List the pulled models.

    Shows the path and the longest pair of each. A job without --revision uses the pinned commit.
    """
    with stderr.status("reading the store"):
        listed = stored_models()
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
        return
    print_table(stored_table(listed))
    for each in listed:
        if each.refused:
            warn(f"{each.model_id} {each.commit[:12]}: {each.refused}")


@app.command("check", epilog=example("models check demo"))
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, model folder, or demo")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or tag", show_default="pinned commit")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Number format of the forward")] = "auto",
    calibrate: Annotated[bool, typer.Option(help="Measure speed for about 3 s")] = True,
    parity: Annotated[
        bool, typer.Option(help="Compare with sentence-transformers, if it is installed")
    ] = True,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Load a model and show how it scores.

    Exits with 2 if it is refused, with 1 if its scores differ from CrossEncoder's.
    """
    with stderr.status("loading the model"):
        checked = check_model(
            model, revision, precision=precision, calibrate=calibrate, compares=parity
        )
    if as_json:
        print(checked.model_dump_json())
    else:
        Console().print(check_facts(checked))
    if checked.parity and not checked.parity.is_equal:
        raise GateFailed(
            f"{model}: scores differ from CrossEncoder's by up to "
            f"{checked.parity.max_difference:.2g}; do not use them before you know why"
        )


@app.command("verify", epilog=example("models verify"))
def verify_models() -> None:
    """Verify the files of the store.

    Reads every file and compares its digest. A damaged file is removed.
    """
    kept = store()
    for model in kept.models():
        damaged = kept.damaged(model)
        if damaged:
            for path in damaged:
                path.unlink(missing_ok=True)
            raise ModelUnavailable(
                f"{', '.join(map(str, damaged))}: missing or damaged, and removed; "
                f"{how_to_pull(model.model_id, None)}"
            )
        print(f"{model.model_id}: whole")


app.command(
    "compare",
    cls=PanelCommand,
    epilog=example("models compare in.parquet --models demo,./mine --qrels a.qrels"),
)(compare)
