"""Compose, Kubernetes, images and settings name the same things, and none of them a secret."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.cli.app import app
from rankmill.broker import SCORE_QUEUE, score_queue
from rankmill.settings import CHECKOUT, Settings, settings
from tests.support.programs import program
from worker import health

COMPOSE_TEXT = (CHECKOUT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE_TEXT = (CHECKOUT / ".env.example").read_text()
EXAMPLE = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", EXAMPLE_TEXT, re.MULTILINE))
SECRETS = {
    *(f"REDIS_PASSWORD_{role}" for role in ("WORKER", "PRODUCER", "BEAT", "FLOWER", "MONITOR")),
    *("RANKMILL_FLOWER_BASIC_AUTH", "GRAFANA_PASSWORD"),
    *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
}
# Of Compose alone: what it calls the images and where it finds the data.
OF_COMPOSE = {"RANKMILL_VERSION", "RANKMILL_DATA"}
SETTINGS = {f"RANKMILL_{name.upper()}" for name in Settings.model_fields}
K8S = [
    document
    for path in sorted((CHECKOUT / "docker" / "k8s").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
DOCKERFILES = {"docker/Dockerfile", "Dockerfile.gpu"}
UID = "10001"


def of_kind(kind: str) -> Iterator[dict[str, Any]]:
    return (each for each in K8S if each["kind"] == kind)


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, pod and only container of everything that runs."""
    for each in (*of_kind("Deployment"), *of_kind("Job")):
        pod = each["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield pod["containers"][0]["name"], pod, container


def environment(service: dict[str, Any]) -> set[str]:
    return set(service.get("environment", {}))


def test_what_compose_requires_is_in_the_example_and_secrets_have_no_default() -> None:
    required = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+):\?", COMPOSE_TEXT))
    assert {"REDIS_PASSWORD_WORKER", "RANKMILL_ALLOWED_PREFIXES"} <= required
    assert required <= set(EXAMPLE)
    assert {name for name in EXAMPLE if name in SECRETS and EXAMPLE[name]} == set()
    assert not re.findall(rf"\$\{{({'|'.join(SECRETS)}):?-[^}}]", COMPOSE_TEXT)
    optional = set(re.findall(r"^# ([A-Z_0-9]+)=", EXAMPLE_TEXT, re.MULTILINE))
    named = set(re.findall(r"\$\{([A-Z_0-9]+)", COMPOSE_TEXT)) | {"COMPOSE_PROFILES"}
    passed_on = set().union(*map(environment, SERVICES.values()))
    assert set(EXAMPLE) | optional <= named | passed_on, "the example names what nobody reads"


def test_every_variable_is_a_setting() -> None:
    texts = [COMPOSE_TEXT, EXAMPLE_TEXT, *map(str, K8S)]
    texts += [(CHECKOUT / name).read_text() for name in DOCKERFILES]
    named = {name for text in texts for name in re.findall(r"\bRANKMILL_[A-Z_]+\b", text)}
    assert named - OF_COMPOSE <= SETTINGS


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_sealed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == (
        "no" if "tools" in service.get("profiles", []) else "unless-stopped"
    )
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), port
    assert not {"privileged", "network_mode", "pid"} & set(service)


def test_what_is_written_to_is_never_the_code() -> None:
    for name, service in SERVICES.items():
        targets = [volume.split(":")[-2:] for volume in service.get("volumes", [])]
        for *_, target in (each for each in targets if each[-1] != "ro"):
            assert not target.startswith(("/app", "/opt")), f"{name}: {target}"
    writers = [
        name for name, each in SERVICES.items() if "models:/models" in each.get("volumes", [])
    ]
    assert writers == ["models"]


def test_redis_is_reached_from_nowhere_else_and_forgets_nothing() -> None:
    redis = SERVICES["redis"]
    assert "ports" not in redis and redis["mem_limit"]
    for option in ("appendonly yes", "appendfsync everysec", "noeviction", "--aclfile"):
        assert option in redis["command"][-1]


def test_kubernetes_runs_the_images_of_compose_with_arguments_that_rankmill_knows() -> None:
    images = {each["image"].partition(":")[0] for each in SERVICES.values()}
    for name, _, container in pods():
        assert container["image"].partition(":")[0] in images, name
    from typer.main import get_command

    commands = vars(get_command(app))["commands"]
    for name, _, container in pods():
        first, *rest = container["args"]
        if first == "celery":
            assert " ".join(container["args"]) == SERVICES[name]["command"]
        elif first in commands and hasattr(commands[first], "params"):
            options = {option for each in commands[first].params for option in each.opts}
            assert {each for each in rest if each.startswith("--")} <= options, name


def test_kubernetes_pods_are_as_sealed_as_the_services() -> None:
    for name, pod, container in pods():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == UID
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["volumes"]}, name
    for name in DOCKERFILES:
        assert f"--uid {UID}" in (CHECKOUT / name).read_text()
        assert f"USER {UID}:{UID}" in (CHECKOUT / name).read_text()


def test_kubernetes_gives_what_compose_gives() -> None:
    (config,) = of_kind("ConfigMap")
    (secret,) = of_kind("Secret")
    assert not any(secret["stringData"].values()), "a manifest holds a secret"
    assert set(config["data"]) <= environment(SERVICES["worker-gpu"])
    for name, _, container in pods():
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            assert reference is None or reference["key"] in secret["stringData"], name
    ports = {
        each["containerPort"] for _, _, container in pods() for each in container.get("ports", [])
    }
    published = {int(port.rpartition(":")[2]) for port in SERVICES["flower"]["ports"]}
    assert ports == published == {5555}
    (service,) = of_kind("Service")
    assert {each["port"] for each in service["spec"]["ports"]} == published


def test_a_worker_has_as_long_to_stop_as_in_compose() -> None:
    graces = {pod["terminationGracePeriodSeconds"] for name, pod, _ in pods() if name == "worker"}
    assert graces == {15 * 60}
    assert SERVICES["worker-gpu"]["stop_grace_period"] == "15m"
    assert SERVICES["worker-cpu"]["stop_grace_period"] == "15m"


def test_each_gpu_type_is_scaled_by_the_queue_that_it_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (config,) = of_kind("ConfigMap")
    monkeypatch.setenv("RANKMILL_MODEL_QUEUES", config["data"]["RANKMILL_MODEL_QUEUES"])
    settings.cache_clear()
    try:
        workers = {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["args"]
            for each in of_kind("Deployment")
            if "worker" in each["metadata"]["name"]
        }
        assert len(workers) == 2
        budgets = [
            each["spec"]["selector"]["matchLabels"]["part"]
            for each in of_kind("PodDisruptionBudget")
        ]
        for scaled in of_kind("ScaledObject"):
            name = scaled["spec"]["scaleTargetRef"]["name"]
            arguments = workers.pop(name)
            model = arguments[-1] if "--model" in arguments else None
            queue = score_queue(model) if model else SCORE_QUEUE
            assert model is None or queue != SCORE_QUEUE
            assert scaled["spec"]["triggers"][0]["metadata"]["listName"] == queue
            assert name.removeprefix("rankmill-") in budgets
        assert not workers, "not scaled"
    finally:
        settings.cache_clear()


def test_the_dockerfiles_are_as_hadolint_wants_them() -> None:
    installed = Path(sys.executable).with_name("hadolint")
    hadolint = str(installed) if installed.exists() else program("hadolint")
    done = subprocess.run(
        [hadolint, *sorted(DOCKERFILES)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_files_that_an_image_needs_are_sent_to_its_build() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    kept = [line[1:].rstrip("/") for line in ignored if line.startswith("!")]
    copied = {
        source
        for name in DOCKERFILES
        for line in (CHECKOUT / name).read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert all(
        any(source == each or source.startswith(f"{each}/") for each in kept) for source in copied
    )
    assert all((CHECKOUT / source).exists() for source in copied)


def test_every_health_check_of_a_worker_waits_longer_than_its_answer_takes() -> None:
    limits = [
        int(seconds)
        for path in DOCKERFILES
        for seconds in re.findall(
            r"HEALTHCHECK .*--timeout=(\d+)s .*worker\.health", (CHECKOUT / path).read_text()
        )
    ]
    limits += [
        container["livenessProbe"]["timeoutSeconds"]
        for _, _, container in pods()
        if "worker.health" in str(container.get("livenessProbe"))
    ]
    assert len(limits) >= 5
    assert min(limits) >= health.ANSWER_S + 2
    assert health.ANSWER_S >= health.DRIVER_S + 3  # Python's start, the end of who asks
