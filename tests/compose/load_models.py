"""Load and score the model folders below a folder, inside an image; print each outcome as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rankmill.errors import ModelUnavailable
from rankmill.models.checkpoint import check_checkpoint
from rankmill.models.recipes import published_recipe
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow
from worker.models import loading

WINDOW = PairWindow(["a short query", "another"], ["a document", "a document of more words"])


def main() -> None:
    """Print a line for each folder; the second argument has the row of docs/models.json of each."""
    rows = json.loads(sys.argv[2])
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        row = rows[folder.name]
        found = outcome(folder, row["model"], runs_code=row.get("code") == "listed")
        print(json.dumps([folder.name, found]))


def outcome(folder: Path, model: str, *, runs_code: bool) -> list[str]:
    """Return how a model was loaded, or the reason why it is refused."""
    try:
        check_checkpoint(folder, may_run_code=runs_code)
        with loading(folder.name):
            scorer = Scorer.load(
                folder,
                precision="fp32",
                may_run_code=runs_code,
                recipe=published_recipe(folder, model),
            )
        list(scorer.score([WINDOW]))
    except ModelUnavailable as error:
        return [str(error).replace(str(folder), "MODEL")]
    return [scorer.info.architecture, scorer.info.path]


if __name__ == "__main__":
    main()
