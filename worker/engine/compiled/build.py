"""Compile the kernels with the machine's C compiler.

    python -m worker.engine.compiled.build [FOLDER]

The build of the package runs it. The library's name has a digest of the sources, so that one of
other sources is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent

# Functions that need more than the x86-64 baseline say so themselves.
_FLAGS = ("-O2", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra")


def library_name() -> str:
    """Return the file name of the library of these sources."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for source in sorted(_HERE.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return f"kernels-{digest.hexdigest()[:12]}.so"


def build(folder: Path = _HERE) -> Path | None:
    """Compile the library into a folder, and return its path; None without a C compiler.

    Older libraries of the folder are deleted.

    Raises:
        subprocess.CalledProcessError: the compiler fails; its output goes to stderr.
    """
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for found in map(shutil.which, ("cc", "gcc", "clang")) if found][:1]
    )
    if not compiler:
        return None
    target = folder / library_name()
    sources = sorted(map(str, _HERE.glob("*.c")))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / target.name
        subprocess.run([*compiler, *_FLAGS, "-o", str(made), *sources], check=True)
        for old in folder.glob("kernels-*.so"):
            if old.name != target.name:
                old.unlink()
        made.replace(target)
    return target


if __name__ == "__main__":
    built = build(*map(Path, sys.argv[1:]))
    print(built or "no C compiler: scoring on CPUs takes up to three times as long without")
