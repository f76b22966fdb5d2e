"""`cpu`, `auto`, `cuda` and `cuda:N` name devices by the answers of the driver and torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rankmill.devices.choice import Choice, check_device, choice_of
from rankmill.devices.driver import DriverFacts, ask_driver
from rankmill.devices.probe import gpus_listed
from rankmill.devices.visible import device_name, visible_names
from rankmill.errors import InputError
from rankmill.settings import Settings, settings
from tests.support.programs import program

TWO = DriverFacts(
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    has_library=True,
    driver="580.95.05",
    driver_cuda="13.0",
    n_visible=2,
    failures=(None, None),
)
A, B, C = "GPU-aaaaaaaa-1111", "GPU-bbbbbbbb-2222", "MIG-cccccccc-3333"


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_devices_that_can_be_asked_for(text: str) -> None:
    assert check_device(text) == text == Settings(device=text).device


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu",
        "mps",
        "-1",
        "0",
        "0,1",
        "0, 1",
        "CUDA",
        "CUDA:0 ",
        " cuda",
        "cuda:",
        "cuda:-1",
        "cuda:01",
        "cuda:0,1",
        "cuda:1.0",
        "cuda:x",
        "cuda:\u0663",
        "cuda\n",
        "cuda:1\n",
        "cpu:0",
    ],
)
def test_any_other_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a device; give auto, cpu, cuda .* or cuda:N"):
        check_device(text)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", ["0"]),
        ("0, 1", ["0", "1"]),
        (" 2 ,0", ["2", "0"]),
        ("01,+2", ["1", "2"]),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
        ("1,x,0", ["1"]),
        ("0,0", []),
        (f"{A},{B}", [A, B]),
        (f"{A}, {B}", [A, B]),
        (f"{A},1", [A]),
        (f"1,{A}", ["1"]),
        (f"{C},MIG-GPU-dd/1/0", [C, "MIG-GPU-dd/1/0"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(
    value: str | None, names: list[str] | None
) -> None:
    assert visible_names(value) == names


def refusal(facts: DriverFacts, wanted: str = "cuda", **environ: str) -> str:
    with pytest.raises(InputError) as caught:
        choice_of(wanted, facts, environ)
    line = str(caught.value)
    assert line.startswith(f"device {wanted} (RANKMILL_DEVICE or --device): no usable GPU: ")
    assert "\n" not in line
    # The error for cuda is the reason why auto chooses the CPU.
    if wanted == "cuda":
        automatic = choice_of("auto", facts, environ)
        assert automatic.gpus == () and automatic.reason in line
    return line


def test_a_gpu_that_cannot_be_used_is_refused_with_what_was_seen() -> None:
    none = replace(TWO, has_library=False, driver=None, driver_cuda=None, n_visible=0)
    line = refusal(none, NVIDIA_VISIBLE_DEVICES="all")
    assert "no NVIDIA driver was found" in line and "NVIDIA_VISIBLE_DEVICES=all" in line
    assert "CUDA_VISIBLE_DEVICES is not set" in line
    assert "580.95.05, but its libcuda.so.1 is not here" in refusal(replace(TWO, has_library=False))
    assert "torch is not installed" in refusal(replace(TWO, torch=None, torch_cuda=None))
    cpu_build = replace(TWO, torch="2.13.0+cpu", torch_cuda=None)
    assert "torch 2.13.0+cpu is built without CUDA" in refusal(cpu_build)
    hung = DriverFacts(silence="the NVIDIA driver did not answer within 25 s")
    assert "did not answer within 25 s" in refusal(hung)
    mismatch = replace(TWO, failure="CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", n_visible=0)
    assert "failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)" in refusal(mismatch)


@pytest.mark.parametrize(
    ("torch_cuda", "driver", "driver_cuda", "needed"),
    [
        ("13.0", "550.54.15", "12.4", "install driver 580 or later, or a torch for CUDA 12"),
        ("12.8", "470.82.01", "11.4", "install driver 525.60.13 or later"),
        ("13.0", None, "12.4", "the NVIDIA driver knows CUDA 12.4 and is too old"),
        ("14.1", "580.95.05", "13.0", "install a later driver"),
    ],
)
def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(
    torch_cuda: str, driver: str | None, driver_cuda: str, needed: str
) -> None:
    line = refusal(replace(TWO, torch_cuda=torch_cuda, driver=driver, driver_cuda=driver_cuda))
    assert needed in line and f"too old for CUDA {torch_cuda}" in line


def test_an_older_minor_version_of_cuda_will_do() -> None:
    facts = replace(TWO, torch_cuda="12.8", driver="525.60.13", driver_cuda="12.0")
    assert choice_of("cuda", facts, {}).gpus == ("0", "1")


@pytest.mark.parametrize("value", ["", "-1", "0,0", "9"])
def test_hidden_devices_are_line_with_the_variable(value: str) -> None:
    hidden = replace(TWO, n_visible=0, failure="CUDA_ERROR_NO_DEVICE (100)", failures=())
    line = refusal(hidden, CUDA_VISIBLE_DEVICES=value)
    assert f"no device is visible (CUDA_VISIBLE_DEVICES={value or '(empty)'}" in line
    assert "no device is visible" in refusal(TWO, CUDA_VISIBLE_DEVICES="0,0")


def test_an_index_chooses_among_what_is_visible() -> None:
    assert choice_of("cuda:1", TWO, {}).gpus == ("1",)
    three = replace(TWO, n_visible=3, failures=())
    assert choice_of("cuda:1", three, {"CUDA_VISIBLE_DEVICES": "5, 7,2"}).gpus == ("7",)
    line = refusal(TWO, "cuda:2", CUDA_VISIBLE_DEVICES="5,7")
    assert "there is no GPU 2: 2 are visible (CUDA_VISIBLE_DEVICES=5,7" in line
    assert "there is no GPU 1: 1 is visible" in refusal(replace(TWO, n_visible=1), "cuda:1")


def test_a_worker_for_each_device_that_is_visible() -> None:
    both = Choice(("0", "1"), cards=(None, None), about="driver 580.95.05, CUDA 13.0")
    assert choice_of("auto", TWO, {}) == both
    assert choice_of("cuda", TWO, {"CUDA_VISIBLE_DEVICES": f"{A}, {B}"}).gpus == (A, B)
    cut = choice_of("cuda", replace(TWO, n_visible=1), {"CUDA_VISIBLE_DEVICES": "1,-1,0"})
    assert cut.gpus == ("1",) and cut.is_surprising and "CUDA stops at the first" in str(cut.reason)


def test_each_mig_slice_has_a_worker() -> None:
    one = replace(TWO, n_visible=1, failures=(None,), gpus=[[A, C, "MIG-2"], [B]])
    assert choice_of("cuda", one, {}).gpus == (C, "MIG-2", B)
    assert choice_of("cuda", one, {"CUDA_VISIBLE_DEVICES": "0"}).gpus == (C, "MIG-2")
    assert choice_of("cuda", one, {"CUDA_VISIBLE_DEVICES": A}).gpus == (C, "MIG-2")
    slices = {"CUDA_VISIBLE_DEVICES": f"{C},MIG-2"}
    assert choice_of("cuda", replace(one, gpus=None), slices).gpus == (C, "MIG-2")
    assert choice_of("cuda:1", one, {}).gpus == ("MIG-2",)


def test_devices_that_fail_are_left_out_and_line() -> None:
    half = replace(TWO, failures=(None, "CUDA error: no kernel image is available"))
    chosen = choice_of("auto", half, {})
    assert chosen.gpus == ("0",) and chosen.is_surprising
    assert chosen.reason == "cuda1 fails: CUDA error: no kernel image is available"
    assert "cuda1 fails" in refusal(half, "cuda:1")
    both = refusal(replace(TWO, failures=("busy or unavailable", "GPU is lost")))
    assert "cuda0 fails: busy or unavailable; cuda1 fails: GPU is lost" in both


def test_the_cpu_in_place_of_a_gpu_is_a_surprise_unless_gpus_are_hidden_on_purpose() -> None:
    cuda_build = replace(TWO, has_library=False, driver=None, n_visible=0)
    assert choice_of("auto", cuda_build, {}).is_surprising
    bare = replace(cuda_build, torch="2.13.0+cpu", torch_cuda=None)
    assert choice_of("auto", bare, {"NVIDIA_VISIBLE_DEVICES": "all"}).is_surprising
    assert choice_of("auto", bare, {"CUDA_VISIBLE_DEVICES": "0"}).is_surprising
    for purpose in ("", "-1"):
        environ = {"CUDA_VISIBLE_DEVICES": purpose, "NVIDIA_VISIBLE_DEVICES": "all"}
        chosen = choice_of("auto", cuda_build, environ)
        assert not chosen.is_surprising and chosen.reason


def test_names_of_devices_are_short() -> None:
    assert [device_name(each) for each in ("3", A, C)] == [
        "cuda3",
        "cuda-aaaaaaaa",
        "cuda-cccccccc",
    ]
    assert device_name("MIG-GPU-dddddddd-4444/1/0") == "cuda-dddddddd-1-0"


def test_slices_are_read_from_nvidia_smi() -> None:
    said = (
        f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})\n"
        f"  MIG 3g.20gb     Device  0: (UUID: {C})\n"
        "  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-dd/1/0)\n"
        f"GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})\n"
    )
    assert gpus_listed(said) == [[A, C, "MIG-GPU-dd/1/0"], [B]]
    assert gpus_listed("No devices found.\n") == []


def test_a_driver_that_hangs_is_an_answer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("rankmill.devices.driver._ASK_S", 0.5)
    assert ask_driver(is_tried=False).silence == "the NVIDIA driver did not answer within 0 s"
    (tmp_path / "sitecustomize.py").write_text("import os\nos.abort()")
    line = str(ask_driver(is_tried=False).silence)
    assert line.startswith("asking the NVIDIA driver failed (exit ")


def test_the_probe_loads_neither_torch_nor_pydantic() -> None:
    code = (
        "import runpy, sys\n"
        "runpy.run_module('rankmill.devices.probe', run_name='__main__')\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic"} & set(done.stderr.split())
    assert json.loads(done.stdout)["torch"]


LIBCUDA = """
#include <stdlib.h>
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuInit(unsigned f) { return getenv("TEST_CUINIT") ? atoi(getenv("TEST_CUINIT")) : 0; }
int cuDeviceGetCount(int *n) { *n = 3; return 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build a library with the driver's entry points (cuda.h), and an nvidia-smi."""
    (tmp_path / "cuda.c").write_text(LIBCUDA)
    library = tmp_path / "libcuda.so.1"
    command = [program("cc"), "-shared", "-fPIC", "-o", str(library), str(tmp_path / "cuda.c")]
    subprocess.run(command, check=True)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\necho "GPU 0: NVIDIA H100 (UUID: {A})"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_the_drivers_own_library_is_asked(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ask_driver(is_tried=True)
    assert (facts.has_library, facts.driver_cuda, facts.n_visible) == (True, "12.4", 3)
    assert facts.gpus == [[A]] and facts.failure is None
    monkeypatch.setenv("TEST_CUINIT", "803")
    facts = ask_driver(is_tried=False)
    assert facts.failure == "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)" and facts.n_visible == 0


def test_a_wrong_setting_is_line_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_DEVICE", "gpu")
    settings.cache_clear()
    with pytest.raises(InputError, match="RANKMILL_DEVICE: 'gpu' is not a device"):
        settings()
    monkeypatch.undo()
    settings.cache_clear()
