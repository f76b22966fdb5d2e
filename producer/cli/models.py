"""`rankmill models`: fetch, list and verify models of the store."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from producer.cli.console import Console
from producer.cli.help import example
from producer.cli.options import JsonFlag
from producer.pull import pull, store
from rankmill.errors import ModelUnavailable
from rankmill.models.store import StoredModel, how_to_pull

app = typer.Typer(
    help="Manage the model store.\n\nThe store is the folder RANKMILL_MODELS.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("pull", epilog=example("models pull BAAI/bge-reranker-v2-m3"))
def pull_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hub id, as BAAI/bge-reranker-v2-m3")
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


@app.command("list", epilog=example("models list"))
def list_models(as_json: JsonFlag = False) -> None:
    """List the pulled models.

    A job without --revision uses the pinned commit.
    """
    stored = store().models()
    if as_json:
        print(json.dumps([model.model_dump(mode="json") for model in stored]))
    else:
        Console().print(_table(stored))


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


def _table(stored: list[StoredModel]) -> Table:
    table = Table("model", "commit", "revision", "size", "")
    for model in stored:
        for each in model.commits:
            names = [name for name, commit in model.revisions.items() if commit == each.commit]
            table.add_row(
                model.model_id,
                each.commit,
                ", ".join(names),
                decimal(each.n_bytes),
                "pinned" if each.commit == model.pinned else "",
            )
    return table
