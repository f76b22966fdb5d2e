"""Describe models by their files: path, longest pair and recipe, without loading weights.

Run as `python -m worker.inspection.describe` with a DescribeRequest on stdin. It prints
Descriptions, or one line with the error, and exits with the error's code.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

from rankmill.contract.base import parse
from rankmill.contract.inspection import DescribeRequest, Description, Descriptions
from rankmill.contract.job import JobSpec
from rankmill.errors import RankmillError
from rankmill.models.locate import locate_model
from rankmill.models.permission import is_code_allowed
from rankmill.models.recipes import recipe_for
from worker.engine.encoding.encoder import pair_length
from worker.engine.families.loader import check_scoring, path_of
from worker.engine.folder.model_folder import ModelFolder
from worker.models import loading


def main() -> None:
    """Answer one request."""
    try:
        request = parse(DescribeRequest, sys.stdin.buffer.read(), "describe")
        with redirect_stdout(sys.stderr):  # libraries print
            found = tuple(map(describe, request.specs))
    except RankmillError as error:
        print(error)
        sys.exit(error.exit_code)
    print(Descriptions(found=found).model_dump_json())


def describe(spec: JobSpec) -> Description:
    """Return how a model would score, or why it is refused."""
    try:
        folder = locate_model(spec.model_id, spec.model_revision)
        recipe = recipe_for(folder, spec)
        runs_code = is_code_allowed(spec.model_id)
        source = ModelFolder(folder, may_run_code=runs_code, recipe=recipe)
        with loading(spec.model_id):
            check_scoring(source)
            path, reason = path_of(source)
            max_length = pair_length(source, None)
    except RankmillError as error:
        return Description(refused=str(error))
    return Description(path=path, path_reason=reason, max_length=max_length, recipe=recipe.title)


if __name__ == "__main__":
    main()
