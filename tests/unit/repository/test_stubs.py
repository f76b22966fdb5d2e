"""A stub of the GPU image has what others link to, names what is missing, and fails cleanly."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rankmill.settings import CHECKOUT
from tests.support.programs import program
from worker.engine.device.faults import fault_of

REAL = """
int real_start(int n) { return n; }
const char *real_text(int error) { return "fine"; }
void *real_memory(long size) { return (void *) 1; }
int real_version(void) { return 7; }
int real_unused(void) { return 1; }
int _Zreal(void) { return 1; }
"""
USER = """
int real_start(int), real_version(void), _Zreal(void);
const char *real_text(int);
void *real_memory(long);
int start(void) { return real_start(0); }
const char *text(void) { return real_text(3); }
void *memory(void) { return real_memory(8); }
int version(void) { return real_version(); }
int of_the_language(void) { return _Zreal(); }
"""
# Calls each function of the user's library, which links to the stub.
CALL = """
import ctypes, os, sys
user = ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW if len(sys.argv) < 3 else os.RTLD_LAZY)
user.text.restype, user.memory.restype = ctypes.c_char_p, ctypes.c_void_p
print(user.start(), user.text().decode(), user.memory(), user.version(), sep="|")
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docker/stub.py as the image's build imports it."""
    program("gcc"), program("readelf")
    monkeypatch.syspath_prepend(CHECKOUT / "docker")
    import stub

    return stub


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with a library of the version REAL_2, and one of torch that links to it."""
    (tmp_path / "real.c").write_text(REAL)
    (tmp_path / "user.c").write_text(USER)
    (tmp_path / "versions").write_text("REAL_2 { global: *; };\n")
    for folder in ("torch/lib", "nvidia/real/lib"):
        (tmp_path / folder).mkdir(parents=True)
    named = ["-Wl,-soname,libreal.so.2", f"-Wl,--version-script={tmp_path / 'versions'}"]
    compile_library(tmp_path / "real.c", tmp_path / "nvidia/real/lib/libreal.so.2", *named)
    linked = [
        str(tmp_path / "nvidia/real/lib/libreal.so.2"),
        "-Wl,-rpath,$ORIGIN/../../nvidia/real/lib",
    ]
    compile_library(tmp_path / "user.c", tmp_path / "torch/lib/libuser.so", *linked)
    return tmp_path


def compile_library(source: Path, library: Path, *options: str) -> None:
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source), *options]
    subprocess.run(command, check=True)


def replace(stub: ModuleType, packages: Path) -> list[str]:
    answers = stub.Answers(
        error=16,
        texts=frozenset({"real_text"}),
        results={"real_memory": 0},
        code={"real_version": "int real_version(void) { return 7; }"},
    )
    library = packages / "nvidia/real/lib/libreal.so.2"
    names: list[str] = stub.replace_by_stub(library, packages.glob("torch/**/*.so*"), answers)
    return names


def check(packages: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "docker" / "check_cuda.py"), str(packages)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_stub_has_the_functions_that_others_ask_for_and_no_other(
    stub: ModuleType, packages: Path
) -> None:
    library = packages / "nvidia/real/lib/libreal.so.2"
    before = library.stat().st_size
    assert replace(stub, packages) == ["real_memory", "real_start", "real_text", "real_version"]
    own = {each.name: each.version for each in stub.symbols(library) if each.is_defined}
    own = {name: version for name, version in own.items() if "real" in name}
    assert own == dict.fromkeys(
        ("real_memory", "real_start", "real_text", "real_version"), "REAL_2"
    )
    assert stub.needs(library).soname == "libreal.so.2"
    assert library.stat().st_size <= before + 2000


def test_a_stub_that_is_called_says_so_and_fails_as_its_library_does(
    stub: ModuleType, packages: Path
) -> None:
    replace(stub, packages)
    user = packages / "torch/lib/libuser.so"
    done = subprocess.run(
        [sys.executable, "-c", CALL, user, "lazily"], capture_output=True, text=True
    )
    reason = "libreal.so.2 is not in this image; build it with --build-arg TRIM=none"
    text = f"STATUS_NOT_SUPPORTED: {reason}"
    assert done.stdout.strip() == f"16|{text}|None|7", done.stderr
    assert done.stderr.splitlines() == [
        f"rankmill: real_start was called, but {reason}",
        f"rankmill: real_memory was called, but {reason}",
    ]
    # torch's own words around such a text; neither a broken GPU nor a full one.
    assert fault_of(RuntimeError(f"CUDA error: {text} when calling `real_start(0)`")) is None
    assert fault_of(RuntimeError("cuDNN error: " + text)) is None


def test_the_check_of_an_image_names_each_symbol_that_none_has(
    stub: ModuleType, packages: Path
) -> None:
    done = check(packages)
    assert done.returncode == 0 and done.stdout.endswith("0 problems\n"), done.stdout + done.stderr
    replace(stub, packages)  # without the name of the language's library
    done = check(packages)
    assert done.returncode == 1
    assert "libuser.so needs _Zreal, which no library has" in done.stdout
    assert re.search(r"libuser\.so: undefined symbol: _Zreal", done.stdout)
    (packages / "nvidia/real/lib/libreal.so.2").unlink()
    done = check(packages)
    assert done.returncode == 1 and "libreal.so.2 is in no package" in done.stderr
