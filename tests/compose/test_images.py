"""Build the images: each is built once, is small, and still does all that it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rankmill.settings import CHECKOUT
from tests.compose.stack import REVISION, Stack
from tests.support.models.popular import ZOO
from worker.engine.compiled.build import library_name

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]

IMAGES = ("control", "worker-cpu")
# docs/deployment.md has what fills them.
LARGEST_MB = {"control": 400, "worker-cpu": 740}
COMPILE = """
import torch
from worker.engine.lean_loading import lean_loading
with lean_loading():
    torch.compile(abs)(torch.ones(1))
"""


def in_image(image: str, *command: str) -> str:
    """Run a program of an image and return its output."""
    run = ["docker", "run", "--rm", "--entrypoint", command[0], f"rankmill/{image}:test"]
    done = subprocess.run([*run, *command[1:]], check=True, capture_output=True, text=True)
    return done.stdout


def dangling() -> set[str]:
    listed = ["docker", "images", "--quiet", "--filter", "dangling=true"]
    return set(subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split())


def test_each_image_is_built_once(stack: Stack) -> None:
    before = dangling()
    done = stack.try_compose("--progress", "plain", "build", timeout_s=1800)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"naming to docker.io/rankmill/(\S+):test", done.stdout + done.stderr)
    assert sorted(set(named)) == sorted(IMAGES)
    written = re.findall(r"writing image (sha256:\w+)", done.stdout + done.stderr)
    assert len(set(written)) == len(IMAGES)
    assert dangling() == before


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_its_labels(stack: Stack, image: str) -> None:
    asked = ["docker", "image", "inspect", f"rankmill/{image}:test"]
    done = subprocess.run(asked, check=True, capture_output=True, text=True)
    labels: dict[str, Any] = json.loads(done.stdout)[0]["Config"]["Labels"]
    found = {name.removeprefix("org.opencontainers.image."): each for name, each in labels.items()}
    assert found["version"] == "test" and found["revision"] == REVISION
    assert found["created"] == "2026-11-28T00:00:00Z"
    assert found["source"] == "https://example.com/rankmill.git"
    assert found["licenses"] == "Apache-2.0" and found["title"].startswith("Rankmill")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_lists_its_packages_and_each_is_pinned(stack: Stack, image: str) -> None:
    bill = json.loads(in_image(image, "cat", "/opt/venv/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "rankmill"
    listed = {plain(each["name"]): each["version"] for each in bill["components"]}
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pinned = {plain(name): version for name, version in pins.items()}
    assert {name for name in listed if name not in pinned} == set()
    # torch may carry a label for its kind, such as +cpu.
    wrong = {n for n, version in listed.items() if version.partition("+")[0] != pinned[n]}
    assert wrong == set()
    folder = "next(each for each in sys.path if each.startswith('/opt/venv'))"
    code = f"import sys, importlib.metadata as m; found = m.distributions(path=[{folder}])"
    names = in_image(image, "python", "-c", f"{code}; print(*(each.name for each in found))")
    assert {plain(name) for name in names.split()} <= set(listed)


def plain(name: str) -> str:
    """Return a package's name in the form that the index uses."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("image", IMAGES)
def test_a_build_leaves_nothing_in_the_temporary_folder(stack: Stack, image: str) -> None:
    assert in_image(image, "ls", "-A", "/tmp") == ""


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_small(stack: Stack, image: str) -> None:
    asked = ["docker", "image", "inspect", f"rankmill/{image}:test", "--format", "{{.Size}}"]
    done = subprocess.run(asked, check=True, capture_output=True, text=True)
    assert int(done.stdout) / 1e6 <= LARGEST_MB[image]


def test_the_image_has_the_kernels_of_these_sources(stack: Stack) -> None:
    folder = "/app/worker/engine/compiled"
    kernels = in_image("worker-cpu", "sh", "-c", f"cd {folder} && ls *.so").split()
    assert kernels == [library_name()]


def test_the_image_scores_or_refuses_every_model_as_documented(
    stack: Stack, tmp_path: Path
) -> None:
    rows = {
        f"{place:02}": row
        for place, row in enumerate(json.loads((CHECKOUT / "docs" / "models.json").read_text()))
    }
    for name, row in rows.items():
        torch.manual_seed(0)
        ZOO[row["model"]](tmp_path / name)
    run = [
        *("docker", "run", "--rm", "--user", str(os.getuid()), "--volume", f"{tmp_path}:/zoo:ro"),
        *("--volume", f"{CHECKOUT}/tests:/app/tests:ro", "rankmill/worker-cpu:test"),
        *("python", "-m", "tests.compose.load_models", "/zoo", json.dumps(rows)),
    ]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcomes = dict(json.loads(line) for line in done.stdout.splitlines())
    assert outcomes == {
        name: [row["refused"]] if "refused" in row else [row["architecture"], row["path"]]
        for name, row in rows.items()
    }


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import transformers.models.vit.modeling_vit", "vit is not in this image"),
        (COMPILE, "torch's compiler is not in this image"),
    ],
)
def test_what_the_image_leaves_out_says_so(stack: Stack, code: str, said: str) -> None:
    run = ["docker", "run", "--rm", "rankmill/worker-cpu:test", "python", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode and said in done.stderr.splitlines()[-1], done.stderr
