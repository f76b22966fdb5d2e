"""Compose, images and settings name the same things, and none of them a secret."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankmill.settings import CHECKOUT, Settings
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
    *("RANKMILL_BROKER_SENTINEL_PASSWORD", "RANKMILL_WEBHOOK_SECRET"),
}
# Of Compose alone: what it calls the images and where it finds the data.
OF_COMPOSE = {"RANKMILL_VERSION", "RANKMILL_DATA"}
SETTINGS = {f"RANKMILL_{name.upper()}" for name in Settings.model_fields}
# The services that read a setting: all that run Rankmill, those with jobs, or the workers.
ALL = {
    name for name, each in SERVICES.items() if "RANKMILL_BROKER_URL" in each.get("environment", {})
}
WORKERS = {"worker-gpu", "worker-cpu", "control"}
ON_JOBS = {*WORKERS, "cli"}
READ_BY_ALL = {
    *("broker_master", "broker_sentinel_user", "broker_sentinel_password"),
    *("broker_tls", "broker_ca", "log_level", "log_format", "model_queues"),
    *("claim_s", "reconcile_s", "tick_s", "stall_s", "keep_finished_s"),
}
READ_BY_WORKERS = {
    *("threads", "numa", "fused", "trusted_tries", "max_tries", "window_pairs", "load_s"),
    *("model_turn_s", "webhook_url", "webhook_secret"),
}
READ_BY_PULLS = {"remote_code_models"}  # they fetch the code that may run
NOT_FROM_ENV_FILE = {
    "broker_url": "each service has its own login",
    "device": "by the image or the service",
    "device_reason": "passed from a process to those that it starts",
    "models": "by the image, where its volume is",
    "scratch": "by the image, where its volume is",
    "runtime": "the container's own /tmp",
    "metrics_port": "fixed, for Prometheus and the health check",
    "metrics_host": "fixed, for Prometheus and the health check",
    "flower_basic_auth": "of Flower alone",
}
DOCKERFILES = {"docker/Dockerfile", "Dockerfile.gpu"}
UID = "10001"


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
    passed_on |= {
        name for each in SERVICES.values() for name in each.get("build", {}).get("args", {})
    }
    assert set(EXAMPLE) | optional <= named | passed_on, "the example names what nobody reads"


def test_every_variable_is_a_setting() -> None:
    texts = [COMPOSE_TEXT, EXAMPLE_TEXT]
    texts += [(CHECKOUT / name).read_text() for name in DOCKERFILES]
    named = {name for text in texts for name in re.findall(r"\bRANKMILL_[A-Z_]+\b", text)}
    assert named - OF_COMPOSE <= SETTINGS


def test_every_setting_reaches_the_services_that_read_it() -> None:
    assert not NOT_FROM_ENV_FILE.keys() & (READ_BY_ALL | READ_BY_WORKERS)
    assert READ_BY_ALL | READ_BY_WORKERS | NOT_FROM_ENV_FILE.keys() <= set(Settings.model_fields)
    for field in set(Settings.model_fields) - NOT_FROM_ENV_FILE.keys():
        variable = f"RANKMILL_{field.upper()}"
        services = ALL if field in READ_BY_ALL else WORKERS if field in READ_BY_WORKERS else ON_JOBS
        services = services | ({"models"} if field in READ_BY_PULLS else set())
        got = {name for name, each in SERVICES.items() if variable in each.get("environment", {})}
        assert got == services, variable


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
        for target in (path for each in targets if "ro" not in each[-1] for path in each):
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


def test_each_image_is_built_by_one_service_and_never_pulled() -> None:
    ours = {name: each for name, each in SERVICES.items() if each["image"].startswith("rankmill/")}
    builders = [each["image"] for each in ours.values() if "build" in each]
    assert sorted(builders) == sorted({each["image"] for each in ours.values()})
    assert {each["pull_policy"] for each in ours.values()} == {"never"}


def test_every_image_is_of_a_fixed_version() -> None:
    images = {name: str(each["image"]) for name, each in SERVICES.items() if "image" in each}
    floating = {
        name: image
        for name, image in images.items()
        if not re.search(r":(\$\{RANKMILL_VERSION:-)?v?\d+\.\d+[^:]*\}?$", image)
    }
    assert images.keys() == SERVICES.keys() and not floating


def test_build_arguments_reach_the_builds_from_the_example() -> None:
    optional = set(re.findall(r"^# ([A-Z_0-9]+)=", EXAMPLE_TEXT, re.MULTILINE))
    assert {"BASE_IMAGE", "REDIS_IMAGE", "TORCH_INDEX", "TRIM"} <= optional
    for service in SERVICES.values():
        if "build" not in service:
            continue
        text = (CHECKOUT / service["build"]["dockerfile"]).read_text()
        target = service["build"].get("target")
        # The target's own stages, and the line before all stages.
        stages = re.split(r"^FROM ", text, flags=re.MULTILINE)
        read = [each for each in stages[1:] if not target or target in each.partition("\n")[0]]
        declared = re.findall(r"^ARG (\w+)", "".join([stages[0], *read]), re.MULTILINE)
        assert set(service["build"]["args"]) == set(declared)


def test_folders_of_this_machine_are_labelled_for_selinux() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            if volume.startswith(("./", "${")):
                assert "z" in volume.rpartition(":")[2].split(","), f"{name}: {volume}"


def test_the_version_is_that_of_the_project_everywhere() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"', text, re.MULTILINE)
    assert set(re.findall(r"\$\{RANKMILL_VERSION:-([^}]*)\}", COMPOSE_TEXT)) == {version}
    for name in DOCKERFILES:
        found = re.findall(r"^ARG VERSION=(.*)", (CHECKOUT / name).read_text(), re.MULTILINE)
        assert set(found) == {version}


def test_the_images_run_without_root() -> None:
    for name in DOCKERFILES:
        text = (CHECKOUT / name).read_text()
        assert f"--uid {UID}" in text and f"USER {UID}:{UID}" in text


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
    assert len(limits) == 2
    assert min(limits) >= health.ANSWER_S + 2
    assert health.ANSWER_S >= health.DRIVER_S + 3  # Python's start, the end of who asks
