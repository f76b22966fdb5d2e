"""Put a library of a few KB in the place of one that others link to and the engine never calls.

A stub has the real library's name and versions, and the functions that others ask of it. Each
function writes one line to stderr that names the library, itself and the build that has it, then
returns an error of its library. Needs gcc and readelf.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ADVICE = "not in this image; build it with --build-arg TRIM=none"
# The engine takes an error with this word for a mistake of the caller, not for a broken GPU.
_KIND = "STATUS_NOT_SUPPORTED"

_SOURCE = """\
#include <stdio.h>
#include <unistd.h>

static const char REASON[] = "{kind}: {soname} is {advice}";

static long missing(const char *function, long result) {{
    dprintf(STDERR_FILENO, "rankmill: %s was called, but {soname} is {advice}\\n", function);
    return result;
}}

{functions}
"""


@dataclass(frozen=True)
class Answers:
    """What the functions of a stub return.

    Attributes:
        error: the library's code for something that it does not support.
        texts: functions that return a text: they return the reason, and write no line.
        results: functions whose error is another number than `error`; 0 is also a null pointer.
        code: functions in C, for all that is neither.
    """

    error: int
    texts: frozenset[str] = frozenset()
    results: Mapping[str, int] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    def function(self, name: str) -> str:
        """Return the C code of a function; its arguments are ignored."""
        if name in self.code:
            return self.code[name]
        if name in self.texts:
            return f"const char *{name}(void) {{ return REASON; }}"
        result = self.results.get(name, self.error)
        return f'long {name}(void) {{ return missing("{name}", {result}); }}'


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol; `version` is empty where a library has none."""

    name: str
    version: str
    is_defined: bool
    is_weak: bool


def replace_by_stub(library: Path, users: Iterable[Path], answers: Answers) -> list[str]:
    """Replace a library by a stub; return the names of its functions.

    Args:
        library: the real library, which is overwritten.
        users: the libraries that may link to it.
        answers: what its functions return.
    """
    soname = needs(library).soname
    asked = {
        symbol.name
        for user in users
        if soname in needs(user).libraries
        for symbol in symbols(user)
        if not symbol.is_defined
    }
    # C++ names are of the C++ library, which some libraries carry inside.
    offered = {
        symbol.name: symbol.version
        for symbol in symbols(library)
        if symbol.is_defined and not symbol.name.startswith("_Z")
    }
    found = {name: offered[name] for name in sorted(asked & offered.keys())}
    library.unlink()
    _compile(library, soname, found, answers)
    return list(found)


def _compile(library: Path, soname: str, versions: dict[str, str], answers: Answers) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "stub.c"), Path(folder, "versions")
        functions = "\n".join(map(answers.function, versions))
        source.write_text(
            _SOURCE.format(soname=soname, kind=_KIND, advice=ADVICE, functions=functions)
        )
        script.write_text(
            "".join(
                f"{version} {{ global: {name}; }};\n"
                for version in sorted({*versions.values()} - {""})
                for name in ["; ".join(each for each in versions if versions[each] == version)]
            )
        )
        options = ["-shared", "-fPIC", "-O1", "-s", f"-Wl,-soname,{soname}"]
        if script.stat().st_size:
            options.append(f"-Wl,--version-script={script}")
        subprocess.run(["gcc", *options, "-o", library, source], check=True)


@dataclass(frozen=True)
class Needs:
    """The name by which others link to a library, and those that it links to."""

    soname: str
    libraries: frozenset[str]


def needs(library: Path) -> Needs:
    """Return the names in the dynamic section of a library."""
    text = _readelf("--dynamic", library)
    (soname,) = re.findall(r"\(SONAME\).*\[(.*)\]", text) or [library.name]
    return Needs(soname, frozenset(re.findall(r"\(NEEDED\).*\[(.*)\]", text)))


def symbols(library: Path) -> list[Symbol]:
    """Return the dynamic symbols of a library that other libraries may share."""
    found = []
    for line in _readelf("--dyn-syms", library).splitlines():
        parts = line.split()
        if len(parts) > 7 and parts[4] in ("GLOBAL", "WEAK", "UNIQUE"):
            name, _, version = parts[7].partition("@")
            is_defined, is_weak = parts[6] != "UND", parts[4] == "WEAK"
            found.append(Symbol(name, version.lstrip("@"), is_defined, is_weak))
    return found


def _readelf(part: str, library: Path) -> str:
    command = ["readelf", "--wide", part, str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
