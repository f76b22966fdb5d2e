"""The process of the command line, which is over once its answer is given.

It does not go through Python's own end: a thread of Arrow that still holds a file would abort the
process there and turn a success into exit code 134 (apache/arrow#34314).
"""

from __future__ import annotations

import os
import sys

from producer.cli.app import main


def run() -> None:
    """The console script."""
    code = 0
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever read it has gone, as `head` does
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    run()
