"""Prove that torch's libraries find every library and symbol that they link to.

python docker/check_cuda.py SITE_PACKAGES

torch binds a function when it is first called, so that an import alone proves little. This compares
the lists of symbols, then opens each library with all of its functions bound at once. It needs no
GPU: what the driver of the host brings may be missing.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

from stub import needs, symbols

_OF_THE_DRIVER = frozenset({"libcuda.so.1", "libnvidia-ml.so.1"})


def main() -> None:
    """Check the folder of the command line; exit with 1 if anything is missing."""
    packages = Path(sys.argv[1])
    libraries = linked_libraries(packages)
    missing = [*missing_symbols(libraries), *unopened(libraries)]
    print(*missing, f"{len(libraries)} libraries, {len(missing)} problems", sep="\n")
    sys.exit(bool(missing))


def linked_libraries(packages: Path) -> dict[str, Path]:
    """Return the libraries of torch and all that they link to, by the name they are linked by."""
    torch = [*packages.glob("torch/lib/*.so*"), *packages.glob("torch/_C.*.so")]
    found = {needs(path).soname: path for path in torch}
    inside = {needs(path).soname: path for path in packages.glob("nvidia/**/*.so*")}
    waiting = [*found.values()]
    while waiting:
        for name in needs(waiting.pop()).libraries - found.keys() - _OF_THE_DRIVER:
            found[name] = inside.get(name) or _of_the_system(name)
            waiting.append(found[name])
    return found


def _of_the_system(name: str) -> Path:
    listed = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    paths = re.findall(rf"^\s*{re.escape(name)} .*=> (\S+)", listed, re.MULTILINE)
    if not paths:
        sys.exit(f"{name} is in no package and not in the system")
    return Path(paths[0])


def missing_symbols(libraries: dict[str, Path]) -> list[str]:
    """Return a line for each symbol that a library needs and none has."""
    listed = {path: symbols(path) for path in libraries.values()}
    defined = {each.name for found in listed.values() for each in found if each.is_defined}
    return [
        f"{path.name} needs {each.name}, which no library has"
        for path, found in listed.items()
        for each in found
        if not each.is_defined and not each.is_weak and each.name not in defined
        if not (needs(path).libraries & _OF_THE_DRIVER and re.match(r"cu[A-Z]|nvml", each.name))
        if not each.name.startswith(("Py", "_Py"))  # python itself has them
    ]


def unopened(libraries: dict[str, Path]) -> list[str]:
    """Return a line for each library that does not open with all of its functions bound."""
    errors = []
    for path in libraries.values():
        if needs(path).libraries & _OF_THE_DRIVER or path.name.startswith("ld-"):
            continue
        try:
            ctypes.CDLL(str(path), mode=os.RTLD_NOW)
        except OSError as error:
            errors.append(str(error))
    return errors


if __name__ == "__main__":
    main()
