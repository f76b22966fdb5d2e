"""The Helm chart of docker/k8s, rendered by Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

from rankmill.settings import CHECKOUT
from tests.support.programs import program

CHART = CHECKOUT / "docker" / "k8s"
KINDS = ("h100", "l4", "cpu")
RELEASE = "rankmill"
PREFIXES = "allowedPrefixes=s3://bucket/rankmill/"

Document = dict[str, Any]


def template(*options: str, kinds: tuple[str, ...] = KINDS) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with the values of these kinds of workers."""
    values = [f"--values={CHART / f'values-{kind}.yaml'}" for kind in kinds]
    return subprocess.run(
        [program("helm"), "template", RELEASE, str(CHART), *values, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


@lru_cache
def rendered(*options: str) -> tuple[Document, ...]:
    """Return the chart's documents."""
    done = template("--set", PREFIXES, *options)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(kind: str, *options: str) -> dict[str, Document]:
    """Return the documents of a kind by their names without that of the release."""
    return {
        each["metadata"]["name"].removeprefix(f"{RELEASE}-"): each
        for each in rendered(*options)
        if each["kind"] == kind
    }


def workloads(*options: str) -> dict[str, Document]:
    """Return everything that runs pods, by its component."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each
        for each in rendered(*options)
        if each["kind"] in ("Deployment", "StatefulSet", "Job")
    }


def pod_of(workload: Document) -> Document:
    """Return the specification of a workload's pods."""
    pod: Document = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Document) -> Document:
    """Return the only container of a workload's pods."""
    (container,) = pod_of(workload)["containers"]
    return dict(container)


def secret_keys(*options: str) -> Iterator[tuple[str, str]]:
    """Yield name and key of every Secret that a pod or KEDA reads one key of."""
    for workload in workloads(*options).values():
        for variable in container_of(workload).get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference is not None:
                yield reference["name"], reference["key"]
    for login in of_kind("TriggerAuthentication", *options).values():
        for reference in login["spec"]["secretTargetRef"]:
            yield reference["name"], reference["key"]
