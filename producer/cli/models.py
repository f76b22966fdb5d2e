"""`rankmill models`: fetch, list and check what the model store holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from producer.cli.console import Console
from producer.cli.options import JsonFlag
from producer.pull import pull, store
from rankmill.errors import ModelUnavailable
from rankmill.models.store import StoredModel, how_to_pull

app = typer.Typer(help="Keep models in the folder RANKMILL_MODELS.", no_args_is_help=True)


@app.command("pull")
def pull_model(
    model: Annotated[str, typer.Argument(help="Hub id, such as BAAI/bge-reranker-v2-m3")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit [the main branch]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a model, check it against the hub's digests and pin its commit."""
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


@app.command("list")
def list_models(as_json: JsonFlag = False) -> None:
    """Show the models that were pulled; a job without --revision takes the pinned commit."""
    stored = store().models()
    if as_json:
        print(json.dumps([model.model_dump(mode="json") for model in stored]))
    else:
        Console().print(_table(stored))


@app.command("verify")
def verify_models() -> None:
    """Read every file again and compare it with what was pulled."""
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
