"""GPUs and slices are those that NVML lists, read by the real nvidia-ml-py from a built library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankmill.devices import cores
from rankmill.devices.choice import Choice, choice_of
from rankmill.devices.cores import bind_near
from rankmill.devices.driver import DriverFacts, ask_driver
from rankmill.devices.nvml import Answer, Card
from rankmill.settings import CHECKOUT
from tests.support.inputs import wait_for
from tests.support.nvml import build_driver
from worker.liveness.card_watch import CardWatch

GIB = 2**30
GPU = "GPU-00000000-0000-0000-0000-0000000000{:02}"
SLICE = "MIG-00000000-0000-0000-0000-0000000001{:02}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    build_driver(folder)
    return folder


@pytest.fixture(autouse=True)
def driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi: NVML alone lists what there is
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def facts(monkeypatch: pytest.MonkeyPatch, **variables: Any) -> DriverFacts:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    found = ask_driver(is_tried=False, limit_s=20)
    return replace(found, torch="2.13.0+cu130", torch_cuda="13.0")


def chosen(monkeypatch: pytest.MonkeyPatch, wanted: str = "cuda", **variables: Any) -> Choice:
    return choice_of(wanted, facts(monkeypatch, **variables), os.environ)


def test_every_gpu_has_a_worker_and_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    none = facts(monkeypatch, TEST_CARDS=0)
    assert (none.n_visible, none.cards, none.gpus) == (0, (), [])
    one = chosen(monkeypatch, TEST_CARDS=1)
    expected = Card(
        uuid=GPU.format(0),
        name="NVIDIA H100 80GB HBM3",
        pci_bus_id="0000:3a:00.0",
        total_bytes=80 * GIB,
        used_bytes=20 * GIB,
        utilization=0.75,
        temperature_c=61,
        ecc_errors=2,
    )
    assert (one.gpus, one.cards) == (("0",), (expected,))
    assert one.about == "driver 580.95.05, CUDA 13.0" and not one.is_surprising
    assert expected.text == (
        "NVIDIA H100 80GB HBM3, 20.0 of 80.0 GiB used, 61 C, 2 uncorrected ECC errors"
    )
    eight = chosen(monkeypatch, TEST_CARDS=8)
    assert eight.gpus == tuple("01234567")
    assert [card.uuid for card in eight.cards if card] == [GPU.format(n) for n in range(8)]


def test_a_number_means_the_gpu_to_which_cuda_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = chosen(monkeypatch, TEST_CARDS=2, TEST_CUDA="1,0")
    assert [card.uuid for card in swapped.cards if card] == [GPU.format(1), GPU.format(0)]
    second = chosen(monkeypatch, "cuda:1")
    assert (second.gpus, second.cards[0] and second.cards[0].uuid) == (("1",), GPU.format(0))
    monkeypatch.setenv("TEST_CUDA", "1")  # as CUDA sees them with the next variable
    hidden = chosen(monkeypatch, CUDA_VISIBLE_DEVICES="0")
    assert (hidden.gpus, hidden.cards[0] and hidden.cards[0].uuid) == (("0",), GPU.format(1))
    named = chosen(monkeypatch, CUDA_VISIBLE_DEVICES=GPU.format(1))
    assert named.cards[0] and named.cards[0].uuid == GPU.format(1)


def test_each_slice_has_a_worker_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, TEST_CARDS=2, TEST_SLICES=2, TEST_CUDA="0")
    assert found.gpus == (SLICE.format(0), SLICE.format(1), GPU.format(1))
    first = found.cards[0]
    assert first is not None
    assert (first.uuid, first.total_bytes, first.utilization) == (SLICE.format(0), 10 * GIB, None)
    # What NVML knows of the whole GPU alone.
    assert (first.temperature_c, first.pci_bus_id) == (61, "0000:3a:00.0")
    only = chosen(monkeypatch, CUDA_VISIBLE_DEVICES=SLICE.format(1))
    assert only.gpus == (SLICE.format(1),) and only.cards[0] and "MIG 1g" in only.cards[0].text


def test_a_gpu_that_fell_off_the_bus_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = chosen(
        monkeypatch, TEST_CARDS=3, TEST_CUDA="0,2", TEST_FAIL="nvmlDeviceGetHandleByIndex_v2:1=15"
    )
    assert [card.uuid for card in lost.cards if card] == [GPU.format(0), GPU.format(2)]
    assert lost.is_surprising and lost.reason == "GPU 1: GPU is lost"


@pytest.mark.parametrize(
    ("function", "code", "about"),
    [
        ("nvmlInitWithFlags", 9, "not described: NVML: Driver Not Loaded"),
        ("nvmlInitWithFlags", 18, "not described: NVML: RM has detected an NVML/RM version"),
        ("nvmlDeviceGetCount_v2", 999, "not described: NVML: Unknown Error"),
    ],
)
def test_an_nvml_that_fails_keeps_no_gpu_from_scoring(
    monkeypatch: pytest.MonkeyPatch, function: str, code: int, about: str
) -> None:
    found = chosen(monkeypatch, TEST_CARDS=2, TEST_FAIL=f"{function}={code}")
    assert (found.gpus, found.cards) == (("0", "1"), (None, None))
    assert about in found.about


def test_what_a_gpu_does_not_support_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for function, fields in (
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetMemoryInfo", "total_bytes used_bytes"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetTotalEccErrors", "ecc_errors"),
        ("nvmlDeviceGetPciInfo_v3", "pci_bus_id"),
        ("nvmlDeviceGetMigMode", ""),
        ("nvmlSystemGetDriverVersion", ""),
    ):
        (card,) = chosen(monkeypatch, TEST_CARDS=1, TEST_FAIL=f"{function}=3").cards
        assert card is not None and card.failure is None
        unknown = {name for name, value in vars(card).items() if value is None} - {"failure"}
        assert unknown == set(fields.split())


def test_an_nvml_that_hangs_is_a_driver_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_CARDS", "1")
    monkeypatch.setenv("TEST_HANG", "nvmlDeviceGetName")
    assert "did not answer within 2 s" in str(ask_driver(is_tried=False, limit_s=2).silence)


WATCH = """
import json, time
from prometheus_client import CollectorRegistry, generate_latest
from worker.liveness.card_watch import CardWatch
from worker.metrics.server import CardMetrics

watch = CardWatch({uuid!r}, every_s=0.05, stale_s={stale_s})
registry = CollectorRegistry()
registry.register(CardMetrics(watch))
watch.start()
time.sleep(0.5)
began = time.monotonic()
text = generate_latest(registry).decode()
print(json.dumps([time.monotonic() - began, watch.text, text]))
"""


def watched(uuid: str, stale_s: float = 60) -> tuple[float, str, dict[str, float]]:
    """Return the seconds of a scrape, the watch's text and the metrics, from a process."""
    code = WATCH.format(uuid=uuid, stale_s=stale_s)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    took, text, scraped = json.loads(done.stdout.splitlines()[-1])
    lines = [line.rpartition(" ") for line in scraped.splitlines() if not line.startswith("#")]
    return took, text, {name: float(value) for name, _, value in lines}


@pytest.mark.slow
def test_metrics_of_a_gpu_are_served_and_never_wait_for_nvml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_CARDS", "2")
    _, text, found = watched(GPU.format(1).removeprefix("GPU-"))
    assert text.endswith("61 C, 2 uncorrected ECC errors, driver 580.95.05, CUDA 13.0")
    info = (
        f'rankmill_gpu_info{{cuda="13.0",driver="580.95.05",name="NVIDIA H100 80GB HBM3",'
        f'uuid="{GPU.format(1)}"}}'
    )
    assert found == {
        "rankmill_gpu_up": 1,
        info: 1,
        "rankmill_gpu_utilization_ratio": 0.75,
        "rankmill_gpu_memory_used_bytes": 20 * GIB,
        "rankmill_gpu_memory_total_bytes": 80 * GIB,
        "rankmill_gpu_temperature_celsius": 61,
        "rankmill_gpu_ecc_errors": 2,
    }
    monkeypatch.setenv("TEST_HANG", "nvmlDeviceGetTemperature")
    took, text, found = watched(GPU.format(1), stale_s=0.2)
    assert took < 5 and found == {"rankmill_gpu_up": 0}
    assert text.startswith("NVML has not answered for")
    monkeypatch.delenv("TEST_HANG")
    monkeypatch.setenv("TEST_FAIL", "nvmlDeviceGetUUID=15")
    _, text, found = watched(GPU.format(1))
    assert (text, found) == ("NVML: GPU is lost", {"rankmill_gpu_up": 0})


def test_an_answer_does_not_count_for_ever() -> None:
    hangs, ended = threading.Event(), threading.Event()

    def read(uuid: str) -> Answer:
        if hangs.is_set():
            ended.wait(20)
        hangs.set()
        return Answer("580", "13.0", (Card(uuid, "NVIDIA H100"),))

    watch = CardWatch("GPU-1", read=read, every_s=0.01, stale_s=1)
    watch.start()
    wait_for(lambda: watch.card is not None, 5)
    assert watch.text == "NVIDIA H100, driver 580, CUDA 13.0"
    wait_for(lambda: watch.card is None, 5)
    assert watch.text.startswith("NVML has not answered for 1 s")
    ended.set()
    wait_for(lambda: watch.card is not None, 5)


USE = """
import os, time
from rankmill.devices.choice import choice_of
from rankmill.devices.driver import ask_driver
from dataclasses import replace
from rankmill.settings import settings
from worker import signals
from worker.health import cards
from worker.liveness.files import folder
from worker.liveness.heartbeat import worker_heartbeat

bound = []
signals.bind_near = lambda pci_bus_id: bound.append(pci_bus_id)
facts = replace(ask_driver(is_tried=False), torch="2.13.0+cu130", torch_cuda="13.0")
watch = signals._use_card(choice_of("cuda:1", facts, os.environ))
worker_heartbeat().start("cuda1@here", settings(), lambda: None)
while not cards(folder(settings())) or not watch.card:
    time.sleep(0.1)
time.sleep(2.1)
print(bound, os.environ["PYTORCH_ALLOC_CONF"], *cards(folder(settings())), sep="|")
"""


@pytest.mark.slow
@pytest.mark.parametrize("numa", [True, False])
def test_a_worker_uses_its_gpu_and_its_health_check_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numa: bool
) -> None:
    for name, value in {
        "TEST_CARDS": "2",
        "RANKMILL_RUNTIME": str(tmp_path),
        "RANKMILL_NUMA": str(numa),
        **({} if numa else {"PYTORCH_ALLOC_CONF": "of the user"}),
    }.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    bound, allocator, card = done.stdout.splitlines()[-1].split("|")
    assert bound == (str(["0000:3b:00.0"]) if numa else "[]")
    assert allocator == ("expandable_segments:True" if numa else "of the user")
    assert card.startswith("cuda1@here: NVIDIA H100 80GB HBM3, 20.0 of 80.0 GiB used, 61 C, ")


BIND = """
import os, sys
from pathlib import Path
from rankmill.devices import cores
cores._FEWEST_CORES = int(sys.argv[2])
print(cores.bind_near("0000:3a:00.0", Path(sys.argv[1])), sorted(os.sched_getaffinity(0)))
"""


def test_a_worker_stays_on_the_cores_next_to_its_gpu(tmp_path: Path) -> None:
    usable = sorted(os.sched_getaffinity(0))
    assert len(usable) >= 2, "one core has no core next to it: run this test on two or more"
    (tmp_path / "0000:3a:00.0").mkdir()
    local = tmp_path / "0000:3a:00.0" / "local_cpulist"

    def bound(listed: str, fewest: int = 1) -> str:
        local.write_text(listed)
        command = [sys.executable, "-c", BIND, str(tmp_path), str(fewest)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
        return done.stdout.strip()

    assert bound(f"{usable[0]},9000-9002\n") == f"1 [{usable[0]}]"
    assert bound(f"{usable[0]}\n", fewest=2) == f"None {usable}"
    assert bound("9000-9002") == bound("0-9000") == bound("\n") == bound("x") == f"None {usable}"


def test_cores_are_kept_where_the_kernel_knows_none(tmp_path: Path) -> None:
    assert bind_near("0000:3a:00.0", tmp_path) is None
    assert cores._cores_listed("0-2,5\n") == {0, 1, 2, 5}
