"""Convert one folder: `python -m worker.conversion` with a request in JSON on stdin.

It prints the names of the new files, or one line with the error, and exits with the error's code.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rankmill.errors import RankmillError
from worker.conversion.convert import convert


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    try:
        with redirect_stdout(sys.stderr):  # of libraries
            files = convert(
                Path(request["folder"]),
                Path(request["target"]),
                weights=request["weights"],
                tokenizer=request["tokenizer"],
                may_run_code=request["may_run_code"],
            )
        print(json.dumps(files))
    except RankmillError as error:
        print(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
