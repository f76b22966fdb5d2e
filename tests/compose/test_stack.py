"""The stack that docker-compose.yml describes, built and started for real.

The tests share it and run in this order.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from rankmill.settings import CHECKOUT
from tests.compose.stack import STALL_S, Stack, wait_until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]

EXAMPLE = "/app/examples/packages.parquet"
N_ROWS = 12_000
# How many rows there are, how many of them different, and how many ranks are wrong.
COUNT = """
import sys, collections, pyarrow.dataset as ds
rows = ds.dataset(sys.argv[1]).to_table(["query_id", "doc_id", "rank"]).to_pylist()
queries = collections.defaultdict(list)
for row in rows:
    queries[row["query_id"]].append(row["rank"])
wrong = sum(sorted(ranks) != list(range(1, len(ranks) + 1)) for ranks in queries.values())
print(len(rows), len({(row["query_id"], row["doc_id"]) for row in rows}), wrong)
"""


def counted(stack: Stack, output: str) -> list[int]:
    return list(map(int, stack.python(COUNT, output).split()))


def status(stack: Stack, output: str) -> dict[str, Any]:
    asked = ["exec", "-T", "control", "rankmill", "status", output, "--json"]
    facts: dict[str, Any] = json.loads(stack.compose(*asked))
    return facts


def test_every_service_is_up_sealed_and_healthy(stack: Stack) -> None:
    assert stack.services() == ["beat", "control", "flower", "redis", "worker-cpu"]
    for service in stack.services():
        container = stack.inspect(service)
        host = container["HostConfig"]
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert host["LogConfig"]["Config"] == {"max-file": "5", "max-size": "20m"}, service
        assert container["Config"]["User"] == ("redis" if service == "redis" else "10001:10001")
        ports = host["PortBindings"] or {}
        assert {bind["HostIp"] for binds in ports.values() for bind in binds} <= {"127.0.0.1"}
        assert set(ports) == ({"5555/tcp"} if service == "flower" else set()), service
        shown = json.dumps([container["Path"], container["Args"]])
        assert stack.password not in shown, f"{service}: its command line shows the password"


def test_redis_keeps_its_data_and_lets_each_role_do_its_own(stack: Stack) -> None:
    (command,) = [
        each for each in stack.inspect("redis")["Config"]["Cmd"] if "redis-server" in each
    ]
    for option in ("appendonly yes", "appendfsync everysec", "noeviction"):
        assert option in command
    ask = ["exec", "-T", "redis", "redis-cli"]
    assert "NOAUTH" in stack.compose(*ask, "ping")
    for user, allowed in (("worker", True), ("flower", False)):
        asked = 'REDISCLI_AUTH="$0" redis-cli --user "$1" hlen rankmill:running'
        said = stack.compose("exec", "-T", "redis", "sh", "-c", asked, stack.password, user)
        assert ("NOPERM" in said) is not allowed, (user, said)


def test_the_demo_job(stack: Stack) -> None:
    job_id = stack.cli("submit", EXAMPLE, "/data/demo", "--model", "demo", "--shard-pairs", "1000")
    stack.compose("run", "--rm", "-T", "cli", "watch", "/data/demo", timeout_s=600)
    facts = status(stack, job_id)
    assert facts["state"] == "succeeded" and facts["n_pairs_done"] == N_ROWS
    assert counted(stack, "/data/demo") == [N_ROWS, N_ROWS, 0]
    manifest = json.loads(stack.python("print(open('/data/_rankmill/demo/manifest.json').read())"))
    assert manifest["scoring"][0]["path"] == "packed"  # the engine, not the null scorer
    if "avx512f" in Path("/proc/cpuinfo").read_text():
        assert manifest["scoring"][0]["versions"]["kernels"] != "torch"


@pytest.mark.parametrize("victim", ["worker-cpu", "redis"])
def test_a_killed_container_comes_back_and_costs_no_row(stack: Stack, victim: str) -> None:
    output = f"/data/without-{victim}"
    # Half a minute of work, whatever the machine.
    options = ["--model", "null:400", "--shard-pairs", "500"]
    stack.cli("submit", EXAMPLE, output, *options)
    wait_until(lambda: status(stack, output)["n_shards_done"] >= 3, within_s=120)
    killed = stack.kill(victim)
    stack.compose("run", "--rm", "-T", "cli", "watch", output, timeout_s=300)
    assert status(stack, output)["state"] == "succeeded"
    assert counted(stack, output) == [N_ROWS, N_ROWS, 0]
    container = stack.inspect(victim)
    assert container["RestartCount"] >= 1 and container["State"]["Pid"] not in (0, killed)
    wait_until(lambda: stack.health(victim) == "healthy", within_s=120)


def test_a_model_that_was_not_pulled_is_named_with_the_command(stack: Stack) -> None:
    stack.cli("submit", EXAMPLE, "/data/absent", "--model", "BAAI/bge-reranker-v2-m3")
    ended = stack.try_compose("run", "--rm", "-T", "cli", "watch", "/data/absent")
    assert ended.returncode == 2
    said = " ".join((ended.stdout + ended.stderr).split())
    assert "docker compose run --rm models pull BAAI/bge-reranker-v2-m3" in said


def test_models_are_pulled_once_and_scored_with(stack: Stack) -> None:
    network = f"{stack.project}_default"
    image = stack.inspect("control")["Config"]["Image"]
    hub = [
        *("docker", "run", "--detach", "--rm", "--network", network, "--network-alias", "hub"),
        *("--volume", f"{CHECKOUT}/tests:/app/tests:ro", "--env", "PYTHONPATH=/app"),
        *(image, "python", "-m", "tests.compose.serve_hub"),
    ]
    container = subprocess.run(hub, check=True, capture_output=True, text=True).stdout.strip()
    try:
        stack.compose(
            "run", "--rm", "-T", "-e", "HF_ENDPOINT=http://hub:8000", "models", "pull", "acme/tiny"
        )
    finally:
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
    assert "acme/tiny" in stack.compose("run", "--rm", "-T", "models")
    stack.cli("submit", EXAMPLE, "/data/pulled", "--model", "acme/tiny", "--top-k", "1")
    stack.compose("run", "--rm", "-T", "cli", "watch", "/data/pulled", timeout_s=600)
    assert counted(stack, "/data/pulled") == [240, 240, 0]


def test_flower_answers_only_to_the_password(stack: Stack) -> None:
    url = stack.address("flower", 5555) + "/api/workers"
    assert http_status(url) == 401
    assert http_status(url, (stack.flower_login[0], "wrong")) == 401
    assert http_status(url, stack.flower_login) == 200
    shutdown = url.replace("/api/workers", "/api/worker/shutdown/any")
    assert http_status(shutdown, stack.flower_login, method="POST") == 403


def http_status(url: str, login: tuple[str, str] | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(url, method=method)
    if login is not None:
        request.add_header(
            "Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode()
        )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_nothing_outside_the_allowed_folders_is_touched(stack: Stack) -> None:
    refused = stack.try_compose(
        "run", "--rm", "-T", "cli", "submit", EXAMPLE, "/scratch/out", "--model", "demo"
    )
    assert refused.returncode == 2 and "RANKMILL_ALLOWED_PREFIXES" in refused.stderr


def test_workers_and_control_serve_metrics_without_the_password(stack: Stack) -> None:
    fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
    for service in ("worker-cpu", "control"):
        served = stack.python(fetch, f"http://{service}:9808/metrics")
        assert "rankmill_pairs_total" in served and stack.password not in served


def test_a_hung_worker_is_unhealthy_and_a_busy_one_is_not(stack: Stack) -> None:
    asked = ["exec", "-T", "worker-cpu", "python", "-m", "worker.health"]
    # One shard, and a pace at which it is busy for as long as this test looks.
    options = ["--model", "null:100", "--shard-pairs", "12000"]
    stack.cli("submit", EXAMPLE, "/data/busy", *options)
    wait_until(lambda: status(stack, "/data/busy")["n_pairs_done"], within_s=60)
    child = max(processes(stack, "worker-cpu"))
    busy = stack.try_compose(*asked)
    assert busy.returncode == 0, busy.stdout
    os.kill(child, signal.SIGSTOP)
    try:
        wait_until(lambda: stack.try_compose(*asked).returncode == 1, within_s=STALL_S + 60)
        assert "no progress" in stack.try_compose(*asked).stdout
    finally:
        os.kill(child, signal.SIGCONT)
    wait_until(lambda: stack.try_compose(*asked).returncode == 0, within_s=60)
    stack.cli("cancel", "/data/busy")


def processes(stack: Stack, service: str) -> list[int]:
    """Those of a container, by their ids on this machine."""
    container = stack.inspect(service)["Id"]
    top = ["docker", "top", container, "-eo", "pid,args"]
    lines = subprocess.run(top, check=True, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


def test_nothing_starts_without_its_secrets(stack: Stack) -> None:
    empty = Stack(stack.folder / "without secrets")
    empty.folder.mkdir()
    for name in (
        "REDIS_PASSWORD_WORKER",
        "RANKMILL_FLOWER_BASIC_AUTH",
        "RANKMILL_ALLOWED_PREFIXES",
    ):
        empty.write_env(**{name: ""})
        refused = empty.try_compose("config", "--quiet")
        assert refused.returncode != 0 and name in refused.stderr
    empty.write_env()
    empty.compose(
        "--profile", "gpu", "--profile", "monitoring", "--profile", "s3", "config", "--quiet"
    )


def test_the_example_chooses_the_workers_with_gpus_and_its_arguments_reach_the_build(
    stack: Stack,
) -> None:
    shipped = Stack(stack.folder / "as shipped")
    shipped.folder.mkdir()
    chosen = {"TRIM": "safe", "TORCH_INDEX": "https://example.com/cu126"}
    shipped.write_env(COMPOSE_PROFILES="gpu", **chosen)
    services = shipped.compose("config", "--services").split()
    assert "worker-gpu" in services and "worker-cpu" not in services
    described = json.loads(shipped.compose("config", "--format", "json"))["services"]
    assert chosen.items() <= described["worker-gpu"]["build"]["args"].items()


def test_down_takes_down_all_that_up_started(stack: Stack) -> None:
    assert stack.containers()
    stack.compose("down", "--timeout", "20", timeout_s=300)
    assert not stack.containers()
    networks = ["docker", "network", "ls", "--quiet", "--filter", f"name={stack.project}"]
    assert not subprocess.run(networks, check=True, capture_output=True, text=True).stdout
