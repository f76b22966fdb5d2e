"""The process of the command line, which is over once its answer is given.

It goes through the least of Python's own end: a thread of Arrow that still holds a file would abort
the process there and turn a success into exit code 134 (apache/arrow#34314).
"""

from __future__ import annotations

import atexit
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
    atexit._run_exitfuncs()  # as multiprocessing does; Flower keeps its history in one
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever read it has gone, as `head` does
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    run()
