"""The model store against a hub over HTTP: pinned, resumed, checked, and enough to score with."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from producer.jobs.submit import submit
from rankmill.errors import JobFailed, ModelUnavailable
from rankmill.models.locate import locate_model
from rankmill.settings import CHECKOUT
from tests.conftest import StartWorker
from tests.support.command import rankmill
from tests.support.hub import Files, Hub, running_hub
from tests.support.inputs import pairs, read_output, wait_for, write
from tests.support.models.checkpoints import BUILDERS

DEMO = {
    path.name: path.read_bytes()
    for path in (CHECKOUT / "models" / "demo-reranker").iterdir()
    if path.suffix in (".json", ".safetensors", ".md")
}
MODEL = "acme/tiny-reranker"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def with_weights(values: bytes) -> Files:
    """Return the demo model with one more tensor, of these bytes."""
    weights = DEMO["model.safetensors"]
    (size,) = struct.unpack_from("<Q", weights)
    header, tensors = json.loads(weights[8 : 8 + size]), weights[8 + size :]
    place = [len(tensors), len(tensors) + len(values)]
    header["filler"] = {"dtype": "U8", "shape": [len(values)], "data_offsets": place}
    text = json.dumps(header).encode()
    return {**DEMO, "model.safetensors": struct.pack("<Q", len(text)) + text + tensors + values}


def pulled(*arguments: str) -> dict[str, object]:
    done = rankmill("models", "pull", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def test_a_pulled_model_scores_without_the_hub(hub: Hub, models: Path, tmp_path: Path) -> None:
    commit = hub.publish(MODEL, {**DEMO, "onnx/model.onnx": b"large", "x.bin": b"pickled"})
    assert pulled(MODEL)["commit"] == commit
    folder = models / "acme--tiny-reranker" / commit
    assert not {"model.onnx", "x.bin", "README.md"} & {path.name for path in folder.iterdir()}
    hub.commits.clear()
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    done = rankmill("run", source, tmp_path / "out", "--model", MODEL, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(read_output(tmp_path / "out")) == 20
    listed = json.loads(rankmill("models", "list", "--json").stdout)
    found = [(each["model_id"], each["commit"], each["is_pinned"]) for each in listed]
    assert found == [(MODEL, commit, True)]
    assert "whole" in rankmill("models", "verify").stdout


def test_a_list_has_the_path_of_each_commit_and_when_it_was_pulled(
    hub: Hub, models: Path, tmp_path: Path
) -> None:
    hub.card = {"license": "other", "license_name": "acme-1"}
    first = hub.publish(MODEL, DEMO)
    pulled(MODEL, "--revision", "main")
    labels = {str(n): f"LABEL_{n}" for n in range(3)}
    config = json.loads(DEMO["config.json"])
    config |= {"id2label": labels, "label2id": {name: n for n, name in labels.items()}}
    second = hub.publish(MODEL, {**DEMO, "config.json": json.dumps(config).encode()})
    pulled(MODEL)
    done = rankmill("models", "list")
    assert done.returncode == 0, done.stderr
    title, *lines = [line.split() for line in done.stdout.splitlines()]
    assert title == "model revision commit size path length license pulled".split()
    today = datetime.now(UTC).date()
    for line, commit, names in zip(lines, (first, second), (["main"], ["pinned"]), strict=True):
        assert line[:3] == [MODEL, *names, commit[:12]]
        assert today - datetime.fromisoformat(line[-2]).date() <= timedelta(days=1)
    assert lines[0][5:8] == ["packed", "384", "acme-1"]
    assert lines[1][5:7] == ["refused", "-"]
    assert f"{MODEL} {second[:12]}: " in done.stderr and "3 labels" in done.stderr


def test_a_pull_fetches_the_folders_of_the_modules(hub: Hub, models: Path, tmp_path: Path) -> None:
    causal = BUILDERS["qwen3"](tmp_path / "causal")
    files = {
        path.relative_to(causal).as_posix(): path.read_bytes()
        for path in causal.rglob("*")
        if path.is_file()
    }
    others = {"1_LogitScore/weights.bin": b"pickled", "onnx/config.json": b"{}"}
    commit = hub.publish(MODEL, {**files, **others})
    pulled(MODEL)
    folder = models / "acme--tiny-reranker" / commit
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(files)

    module = folder / "1_LogitScore" / "config.json"
    module.unlink()
    with pytest.raises(ModelUnavailable, match=r"1_LogitScore/config\.json: missing.*models pull"):
        locate_model(MODEL)
    pulled(MODEL)
    assert module.read_bytes() == files["1_LogitScore/config.json"]
    module.write_bytes(b"{" + b" " * (module.stat().st_size - 2) + b"}")
    assert "1_LogitScore/config.json" in rankmill("models", "verify").stderr

    hub.publish(MODEL, {**files, "modules.json": b'[{"type": "a.Transformer", "path": "../x"}]'})
    refused = rankmill("models", "pull", MODEL)
    assert refused.returncode == 2 and "leads out of the folder" in refused.stderr


def test_a_store_of_an_earlier_version_is_completed(hub: Hub, models: Path, tmp_path: Path) -> None:
    """Earlier versions pulled only the top folder."""
    causal = BUILDERS["qwen3"](tmp_path / "causal")
    files = {
        path.relative_to(causal).as_posix(): path.read_bytes()
        for path in causal.rglob("*")
        if path.is_file()
    }
    commit = hub.publish(MODEL, files)
    pulled(MODEL)
    root = models / "acme--tiny-reranker"
    index = json.loads((root / "model.json").read_text())
    kept = index["commits"][0]
    kept["files"] = [file for file in kept["files"] if "/" not in file["name"]]
    (root / "model.json").write_text(json.dumps(index))
    (root / commit / "1_LogitScore" / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match="with its subfolders"):
        locate_model(MODEL)
    pulled(MODEL)
    locate_model(MODEL)


def test_what_was_pulled_stays_until_it_is_pulled_again(hub: Hub, models: Path) -> None:
    first = hub.publish(MODEL, DEMO)
    hub.tags[MODEL, "v1"] = first
    pulled(MODEL, "--revision", "v1")
    second = hub.publish(MODEL, with_weights(b"a newer one."))
    assert locate_model(MODEL).name == first
    pulled(MODEL)
    assert locate_model(MODEL).name == second
    assert locate_model(MODEL, "v1").name == locate_model(MODEL, first).name == first
    n_asked = len(hub.asked)
    pulled(MODEL, "--revision", "v1")  # all there: pinned again, nothing fetched
    assert locate_model(MODEL).name == first and len(hub.asked) == n_asked


def test_a_killed_pull_goes_on_where_it_was(hub: Hub, models: Path) -> None:
    files = with_weights(os.urandom(24 << 20))  # the client writes 10 MB at a time
    weights = files["model.safetensors"]
    commit = hub.publish(MODEL, files)
    hub.stall_after = 22 << 20
    part = models / "acme--tiny-reranker" / commit / "model.safetensors.part"
    command = [sys.executable, "-m", "producer.cli", "models", "pull", MODEL]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as pulling:
        wait_for(lambda: part.exists() and part.stat().st_size >= 20 << 20)
        with pytest.raises(ModelUnavailable, match="not in the model store"):
            locate_model(MODEL)  # half a model is none
        pulling.kill()
    hub.stall_after = None
    pulled(MODEL)
    assert (locate_model(MODEL) / "model.safetensors").read_bytes() == weights
    resumed = [asked for name, asked in hub.asked if name == "model.safetensors"]
    assert resumed == [None, f"bytes={20 << 20}-"]


def test_a_cut_connection_is_taken_up_again(hub: Hub, models: Path) -> None:
    commit = hub.publish(MODEL, with_weights(os.urandom(12 << 20)))
    hub.cut_after = 11 << 20
    assert pulled(MODEL)["commit"] == commit
    assert [asked for name, asked in hub.asked if name == "model.safetensors"][-1] is not None


def test_a_damaged_file_is_refused_and_fetched_again(hub: Hub, models: Path) -> None:
    hub.publish(MODEL, DEMO)
    hub.garble = True
    refused = rankmill("models", "pull", MODEL)
    assert refused.returncode == 2
    assert "model.safetensors arrived damaged" in refused.stderr
    with pytest.raises(ModelUnavailable):
        locate_model(MODEL)
    hub.garble = False
    pulled(MODEL)
    assert (locate_model(MODEL) / "model.safetensors").read_bytes() == DEMO["model.safetensors"]


def test_verify_removes_a_damaged_file_that_the_next_pull_fetches(hub: Hub, models: Path) -> None:
    hub.publish(MODEL, DEMO)
    pulled(MODEL)
    weights = locate_model(MODEL) / "model.safetensors"
    weights.write_bytes(bytes(len(DEMO["model.safetensors"])))
    found = rankmill("models", "verify")
    assert found.returncode == 2 and "model.safetensors: missing or damaged" in found.stderr
    with pytest.raises(ModelUnavailable, match=r"cut short; run `rankmill models pull acme/tiny"):
        locate_model(MODEL)
    pulled(MODEL)
    assert weights.read_bytes() == DEMO["model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["acme/pickled"], "only pickled weights (pytorch_model.bin)"),
        (["acme/nothing"], "the hub has no such model"),
        ([MODEL, "--revision", "v9"], "the hub knows no revision v9"),
        (["demo"], "nothing to fetch"),
    ],
)
def test_what_cannot_be_pulled_is_refused_before_anything_is_written(
    hub: Hub, models: Path, arguments: list[str], message: str
) -> None:
    hub.publish(MODEL, DEMO)
    safe = {name: content for name, content in DEMO.items() if not name.endswith("safetensors")}
    hub.publish("acme/pickled", {**safe, "pytorch_model.bin": b"", "onnx/model.safetensors": b""})
    refused = rankmill("models", "pull", *arguments)
    assert refused.returncode == 2 and message in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert not hub.asked and not models.exists()


def test_without_a_store_the_error_names_the_setting(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKMILL_MODELS", raising=False)
    refused = rankmill("models", "pull", MODEL)
    assert refused.returncode == 2 and "RANKMILL_MODELS is not set" in refused.stderr


def test_a_worker_without_the_model_says_what_to_run(
    models: Path, broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    source = write(pairs(2, 2), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id=MODEL, model_revision="v1")
    with pytest.raises(JobFailed) as failed:
        job.wait(timeout_s=60)
    wanted = f"docker compose run --rm models pull {MODEL} --revision v1"
    assert wanted in str(failed.value) and str(models) in str(failed.value)
