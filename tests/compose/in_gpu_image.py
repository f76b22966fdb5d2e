"""Try torch, the engine and the stubs inside a GPU image, on the CPU; print one JSON object."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from docker.warm import score_the_demo
from worker.engine.scorer import PairWindow, Scorer

PACKAGES = Path(torch.__file__).parents[1]
PROFILED = torch.profiler.ProfilerActivity.CPU


def main() -> None:
    """Report on the image; the arguments are a model's folder and functions as LIBRARY:FUNCTION."""
    model, *functions = sys.argv[1:]
    libraries = [*PACKAGES.glob("torch/lib/*.so*"), *PACKAGES.glob("nvidia/**/*.so*")]
    scorer = Scorer.load(Path(model), precision="fp32")
    (scores,) = scorer.score([PairWindow(["a query"] * 2, ["a document", "another"])])
    with contextlib.redirect_stdout(sys.stderr):
        score_the_demo()
    with torch.profiler.profile(activities=[PROFILED]):
        torch.nn.functional.conv1d(torch.ones(1, 4, 8), torch.ones(4, 4, 3))
    print(
        json.dumps(
            {
                "torch": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "operators": len(dir(torch.ops.aten)) > 100,
                "logits": scores.logits.tolist(),
                "unopened": [path.name for path in libraries if not opens(path)],
                "triton": find_spec("triton") is not None,
                "called": {each: call(*each.split(":")) for each in functions},
            }
        )
    )


def opens(path: Path) -> bool:
    """Return whether a library opens with all of its functions bound at once."""
    try:
        ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    except OSError as error:
        # Of the host's driver, or of networks between machines, for which torch links to nothing.
        plugin = path.name.startswith(("nvshmem_bootstrap", "nvshmem_transport", "libcufile_rdma"))
        return plugin or "libcuda.so" in str(error)
    return True


def call(library: str, function: str) -> Any:
    """Call a function of a library of CUDA; return its result and the lines that it wrote."""
    (path,) = PACKAGES.glob(f"nvidia/**/{library}")
    asked = getattr(ctypes.CDLL(str(path)), function)
    if function.endswith(("String", "malloc")):
        asked.restype = ctypes.c_char_p
    with tempfile.TemporaryFile() as written, redirected(written.fileno()):
        result = asked(0)
        written.seek(0)
        lines = written.read().decode().splitlines()
    return [result.decode() if isinstance(result, bytes) else result, lines]


@contextlib.contextmanager
def redirected(target: int) -> Any:
    """Let what C code writes to stderr go to another file."""
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main()
