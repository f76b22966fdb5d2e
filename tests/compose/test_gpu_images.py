"""Build the GPU image at each TRIM: it opens, scores on a CPU, and names what it leaves out.

Machines without a GPU prove that nothing is missing that torch links to. With one, the tests of
tests/gpu run in each image, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rankmill.settings import CHECKOUT
from tests.compose.stack import check_docker
from tests.support.models.checkpoints import bert
from worker.engine.scorer import PairWindow, Scorer

pytestmark = [pytest.mark.gpu_images, pytest.mark.timeout(3600)]

# docs/deployment.md has what they were when they were measured.
LARGEST_MB = {"small": 2100, "safe": 4300, "none": 5300}
ADVICE = "is not in this image; build it with --build-arg TRIM=none"
# Of each stub one function, its result, and whether it writes a line.
STUBBED = {
    "libcufft.so.*:cufftCreate": (16, True),
    "libcusparse.so.*:cusparseCreate": (10, True),
    "libcusparse.so.*:cusparseGetErrorString": ("STATUS_NOT_SUPPORTED: libcusparse.so", False),
    "libcusparseLt.so.*:cusparseLtInit": (10, True),
    "libnccl.so.*:ncclGetUniqueId": (5, True),
    "libnccl.so.*:ncclGetErrorString": ("STATUS_NOT_SUPPORTED: libnccl.so", False),
    "libnvshmem_host.so.*:nvshmem_malloc": (None, True),
    "libcusolver.so.*:cusolverDnCreate": (9, True),
    "libcufile.so.*:cuFileRead": (-1, True),
    "libcudnn.so.*:cudnnCreate": (3000, True),
    "libcudnn.so.*:cudnnGetErrorString": ("STATUS_NOT_SUPPORTED: libcudnn.so", False),
}


@pytest.fixture(scope="module", params=LARGEST_MB)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Build the image at a level; remove it after its tests, since all would fill a small disk."""
    check_docker()
    build = ["docker", "build", "--file", "Dockerfile.gpu", "--tag", image(request.param)]
    arguments = [f"TRIM={request.param}"]
    arguments += [f"{name}={os.environ[name]}" for name in ("BASE_IMAGE",) if name in os.environ]
    for argument in arguments:
        build += ["--build-arg", argument]
    done = subprocess.run([*build, "."], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    yield request.param
    if "KEEP_IMAGES" not in os.environ:
        subprocess.run(["docker", "image", "rm", image(request.param)], check=True)


def image(level: str) -> str:
    return f"rankmill/worker-gpu:test-{level}"


def run(level: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "run", "--rm", "--user", str(os.getuid()), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_image_is_small(level: str) -> None:
    asked = ["docker", "image", "inspect", image(level), "--format", "{{.Size}}"]
    done = subprocess.run(asked, check=True, capture_output=True, text=True)
    assert int(done.stdout) / 1e6 <= LARGEST_MB[level]


def test_an_image_opens_all_of_cuda_and_scores(level: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = bert(tmp_path / "bert", num_labels=1)
    done = run(
        level,
        *("--env", "RANKMILL_DEVICE=cpu", "--volume", f"{folder}:/bert:ro"),
        *("--volume", f"{CHECKOUT}/tests:/app/tests:ro", image(level)),
        *("python", "-m", "tests.compose.in_gpu_image", "/bert"),
        *(STUBBED if level == "small" else ()),
    )
    assert done.returncode == 0, done.stderr
    assert "rankmill:" not in done.stderr  # no stub was called
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["torch"] and found["operators"] and found["unopened"] == []
    assert found["cudnn"] > 90_000
    assert found["triton"] == (level != "small")
    scorer = Scorer.load(folder, precision="fp32")
    (scores,) = scorer.score([PairWindow(["a query"] * 2, ["a document", "another"])])
    assert found["logits"] == pytest.approx(scores.logits.tolist(), abs=1e-5)
    for name, (expected, writes) in STUBBED.items() if level == "small" else ():
        library, _, function = name.partition(":")
        result, lines = found["called"][name]
        if isinstance(expected, str):
            assert result.startswith(expected) and result.endswith(ADVICE)
        else:
            assert result == expected, name
        assert len(lines) == writes
        for line in lines:
            assert line.startswith(f"rankmill: {function} was called, but {library[:-2]}")
            assert line.endswith(ADVICE)


def test_without_a_gpu_an_image_says_so(level: str) -> None:
    done = run(level, image(level), "doctor", "--device", "cuda")
    assert done.returncode != 0 and "cuda" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_tests_of_gpus_run_in_an_image(level: str, tmp_path: Path) -> None:
    described = subprocess.run(["docker", "info"], check=True, capture_output=True, text=True)
    has_gpus = "nvidia" in described.stdout
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    subprocess.run([*install, "pytest"], check=True)
    done = run(
        level,
        *(("--gpus", "all") if has_gpus else ()),
        *("--volume", f"{tmp_path}:/pytest:ro", "--volume", f"{CHECKOUT}:/checkout:ro"),
        *("--workdir", "/checkout", "--env", "PYTHONPATH=/checkout:/pytest", image(level)),
        *("python", "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (" passed" if has_gpus else " skipped") in done.stdout.splitlines()[-1]
