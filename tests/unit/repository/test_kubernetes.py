"""The Helm chart is valid, refuses wrong values, and runs what Compose runs."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from producer.cli.app import whole_app
from rankmill.broker import SCORE_QUEUE, score_queue
from rankmill.broker_url import sentinels
from rankmill.settings import CHECKOUT, Settings, settings
from tests.support.chart import (
    CHART,
    PREFIXES,
    RELEASE,
    container_of,
    of_kind,
    pod_of,
    rendered,
    secret_keys,
    template,
    workloads,
)
from worker import health

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PULL = ("--set", "models.pull={BAAI/bge-reranker-v2-m3@main}")
# The workloads that run what a service of Compose runs.
SAME = {
    "redis": ["redis"],
    "worker-gpu": ["worker-h100", "worker-l4"],
    "worker-cpu": ["worker-cpu"],
    **{name: [name] for name in ("control", "beat", "flower", "exporter", "cli", "models")},
}
# The cluster has its own Prometheus and Grafana, which get rules, monitors and dashboard.
NOT_RUN = {"prometheus", "grafana", "s3"}
SAME_PAIRS = [(service, name) for service, names in SAME.items() for name in names]
VARIANTS = {
    "as shipped": (),
    "models": PULL,
    "a Redis elsewhere": (
        *("--set", "redis.enabled=false,redis.caSecret=redis-ca"),
        *("--set", "redis.url=rediss://USERNAME:PASSWORD@redis.example.com:6380/1"),
    ),
    "sentinels": (
        *("--set", "redis.enabled=false,redis.sentinel.master=night,redis.sentinel.tls=true"),
        *("--set", "redis.sentinel.user=asker,redis.sentinel.passwordSecret=sentinels"),
        *("--set", "redis.url=sentinel://USERNAME:PASSWORD@a:26380/2;sentinel://b;sentinel://c:1"),
    ),
    "a shared disk": ("--set", "data.claim=shared,models.claim=models"),
    "eight GPUs in a pod": ("--set", "workers.h100.gpus=8"),
    "behind a proxy": ("--set", "flower.urlPrefix=/flower"),
    "nothing but Kubernetes": (
        *("--set", "keda.enabled=false,monitoring.enabled=false,networkPolicy.enabled=false"),
    ),
    "secrets and labels": (
        *("--set", "settingsFromSecrets={rankmill-s3},image.pullSecrets={pull}"),
        *("--set", "monitoring.labels.release=prometheus,models.tokenSecret=hub"),
        *("--set", "serviceAccount.annotations.role=reader,image.registry=registry.example.com/"),
    ),
}
OUTSIDE = f"{PREFIXES},redis.enabled=false"
OLDEST_AND_NEWEST = ("1.28", "1.37")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_document_is_valid(variant: str) -> None:
    documents = rendered(*VARIANTS[variant])
    for document in documents:
        check(json.dumps(document))
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(names) == len(set(names)) and len(names) >= 20


@cache  # variants share most documents
def check(text: str) -> None:
    """Compare a document with the schemas of its kind, which know all fields."""
    # Hundreds of models, which every process that collects this file would load.
    import kubernetes_validate
    from cloudcoil.models.keda import v1alpha1 as keda
    from cloudcoil.models.prometheus_operator import v1 as operator

    document = json.loads(text)
    own = {"keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": operator}
    if document["apiVersion"] in own:
        model = getattr(own[document["apiVersion"]], document["kind"])
        read = model.model_validate(document)
        # The models drop a field that they do not know.
        again = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert plain(again) == plain(document), document["metadata"]["name"]
        return
    for version in OLDEST_AND_NEWEST:
        kubernetes_validate.validate(document, version, strict=True)


def plain(value: Any) -> Any:
    """Return a document with numbers as text, since the models know both for a quantity or port."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "allowedPrefixes"),
        (["--set", f"{PREFIXES},setings.A=1"], "setings"),
        (["--set", f"{PREFIXES},image.tag=latest"], "/image/tag"),
        (["--set", f"{PREFIXES},redis.image=redis"], "/redis/image"),
        (["--set", f"{PREFIXES},redis.enabled=false"], "set redis.url"),
        (["--set", f"{PREFIXES},redis.url=redis://h:6379"], "/redis/url"),
        (["--set", f"{PREFIXES},redis.url=redis://USERNAME:PASSWORD@h:1"], "set redis.enabled"),
        (["--set", f"{OUTSIDE},redis.url=sentinel://USERNAME:PASSWORD@h"], "redis.sentinel.master"),
        (["--set", f"{OUTSIDE},redis.url=sentinel://USERNAME:PASSWORD@h;redis://i"], "/redis/url"),
        (["--set", f"{PREFIXES},redis.sentinel.master=night"], "redis.sentinel.master"),
        (["--set", f"{PREFIXES},settings.RANKMILL_BROKER_MASTER=night"], "RANKMILL_BROKER_MASTER"),
        (["--set", f"{PREFIXES},settings.RANKMILL_BROKER_URL=redis://h"], "RANKMILL_BROKER_URL"),
        (["--set", f"{PREFIXES},settings.AWS_SECRET_ACCESS_KEY=x"], "AWS_SECRET_ACCESS_KEY"),
        (["--set", f"{PREFIXES},workers.h100.gpu=2"], "gpu"),
        (["--set", f"{PREFIXES},models.pull={{bge}}"], "/models/pull/0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(options: list[str], named: str) -> None:
    done = template(*options)
    assert done.returncode != 0 and named in done.stderr, done.stderr


def test_a_chart_without_workers_is_refused() -> None:
    done = template("--set", PREFIXES, kinds=())
    assert done.returncode != 0 and "values-h100.yaml" in done.stderr


def test_compose_and_the_chart_run_the_same() -> None:
    assert set(SAME) | NOT_RUN == set(SERVICES)
    assert {name for names in SAME.values() for name in names} == set(workloads(*PULL))


@pytest.mark.parametrize(("service", "name"), SAME_PAIRS)
def test_a_workload_has_the_command_and_image_of_its_service(service: str, name: str) -> None:
    described, container = SERVICES[service], container_of(workloads(*PULL)[name])
    variable = re.fullmatch(r"(.*)\$\{\w+:-([^}]+)\}", described["image"])
    assert variable is not None
    assert container["image"] == "".join(variable.groups())
    if name == "redis":
        shown = [part.replace("$$", "$") for part in described["command"]]
        assert container["command"] == shown
    elif name == "worker-l4":
        assert container["args"][:2] == ["worker", "--model"]
    elif name == "cli":  # a shell that waits for `kubectl exec`
        assert container["args"] == ["sh", "-c", "sleep infinity"]
    elif name == "models":
        assert container["args"][:2] == ["models", "pull"]
        assert described["entrypoint"] == ["entrypoint", "models"]
    else:
        command = re.sub(r"\s*\$\{.*", "", described["command"])
        assert container["args"] == command.split()


def test_rankmill_knows_every_argument() -> None:
    commands = vars(get_command(whole_app()))["commands"]
    for name, workload in workloads(*PULL, *VARIANTS["behind a proxy"]).items():
        arguments = container_of(workload).get("args", ["sh"])
        if arguments[0] in ("celery", "sh"):
            continue
        command = commands[arguments[0]]
        if hasattr(command, "commands"):
            command = command.commands[arguments[1]]
        known = {option for each in command.params for option in each.opts}
        assert {each for each in arguments if each.startswith("--")} <= known, name


@pytest.mark.parametrize(("service", "name"), SAME_PAIRS)
def test_a_workload_has_the_login_and_settings_of_its_service(service: str, name: str) -> None:
    described, workload = SERVICES[service], workloads(*PULL)[name]
    container = container_of(workload)
    given = described.get("environment", {})
    variables = {each["name"]: each for each in container.get("env", [])}
    url = re.match(r"redis://(\w+):", given.get("RANKMILL_BROKER_URL", ""))
    secrets = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for name, each in variables.items()
        if name in ("REDIS_USERNAME", "REDIS_PASSWORD")
    }
    assert secrets == ({f"{RELEASE}-login-{url[1]}"} if url else set())
    fixed = {
        name: str(value)
        for name, value in given.items()
        if value and "${" not in str(value) and name != "RANKMILL_BROKER_URL"
    }
    if name == "redis":
        fixed = {}
    assert {name: variables[name]["value"] for name in fixed} == fixed
    # What .env may hold comes from the ConfigMap and, for what works on jobs, Secrets of settings.
    options = (*PULL, "--set", "settingsFromSecrets={rankmill-s3}")
    sources = container_of(workloads(*options)[name]).get("envFrom", [])
    kinds = ["configMapRef"] * ("RANKMILL_LOG_LEVEL" in given)
    kinds += ["secretRef"] * ("RANKMILL_ALLOWED_PREFIXES" in given)
    assert [kind for each in sources for kind in each] == kinds


@pytest.mark.parametrize(("service", "name"), SAME_PAIRS)
def test_a_workload_has_the_probes_of_its_service(service: str, name: str) -> None:
    container = container_of(workloads(*PULL)[name])
    probes = {kind: container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")}
    check = SERVICES[service].get("healthcheck", {})
    if check.get("disable"):
        assert not any(probes.values())
        return
    test = check.get("test") or ["CMD", "python", "-m", "worker.health"]  # the image's
    wanted = test[1:] if test[0] == "CMD" else ["sh", "-c", test[1]]
    for kind, probe in probes.items():
        assert probe is not None, kind
        if "httpGet" in probe:
            port = {each["name"]: each["containerPort"] for each in container["ports"]}
            get = probe["httpGet"]
            url = wanted[-1].replace("${FLOWER_URL_PREFIX:-}", "")
            assert f"http://127.0.0.1:{port[get['port']]}{get['path']}" in url
        else:
            assert probe["exec"]["command"] == wanted, kind
        assert probe["timeoutSeconds"] >= (health.ANSWER_S + 2 if "worker" in name else 3)
    start = probes["startup"]
    assert start is not None
    # A worker may take 150 s to start.
    assert start["periodSeconds"] * start["failureThreshold"] >= (300 if "worker" in wanted else 60)


@pytest.mark.parametrize(("service", "name"), SAME_PAIRS)
def test_a_workload_stops_and_mounts_as_its_service(service: str, name: str) -> None:
    described = SERVICES[service]
    workload = workloads(*PULL, "--set", "data.claim=shared")[name]
    pod, container = pod_of(workload), container_of(workload)
    grace = described.get("stop_grace_period")
    if grace:
        assert pod["terminationGracePeriodSeconds"] == 60 * int(grace.removesuffix("m"))
    mounted = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
    targets = [volume.split(":") for volume in described.get("volumes", [])]
    wanted = {
        next(part for part in reversed(parts) if part.startswith("/")): "ro" in parts[-1]
        for parts in targets
    }
    assert {path: only for path, only in mounted.items() if path != "/tmp"} == wanted
    volumes = {each["name"]: each for each in pod["volumes"]}
    volumes |= {
        each["metadata"]["name"]: each for each in workload["spec"].get("volumeClaimTemplates", [])
    }
    assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
    assert volumes["tmp"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
    assert "size=256m" in described["tmpfs"][0]


def test_pods_are_as_sealed_as_the_services() -> None:
    for name, workload in workloads(*PULL).items():
        pod, container = pod_of(workload), container_of(workload)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == (999 if name == "redis" else 10001)
        assert pod["automountServiceAccountToken"] is False
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_a_rollout_frees_what_a_pod_holds_before_it_starts_another() -> None:
    for name, deployment in of_kind("Deployment").items():
        strategy = deployment["spec"]["strategy"]
        is_first = strategy.get("type") == "Recreate" or strategy["rollingUpdate"]["maxSurge"] == 0
        assert is_first, name
    assert not any("replicas" in workloads()[name]["spec"] for name in SAME["worker-gpu"])


def test_the_secrets_are_those_that_the_documentation_makes() -> None:
    text = (CHECKOUT / "docs" / "deployment.md").read_text()
    (roles,) = re.findall(r"for role in ([a-z ]+); do", text)
    made = {
        (f"{RELEASE}-login-{role}", key)
        for role in roles.split()
        for key in re.findall(r"--from-literal=(\w+)=", text.partition("for role in")[2][:400])
    }
    made.add((f"{RELEASE}-flower", "basic-auth"))
    assert set(secret_keys()) == made
    without = set(secret_keys(*VARIANTS["nothing but Kubernetes"]))
    assert made - without == {(f"{RELEASE}-login-keda", key) for key in ("username", "password")}
    users = re.findall(r"^user (\w+) .*#@", (CHECKOUT / "docker/redis/users.acl").read_text(), re.M)
    assert set(users) <= set(roles.split())


def test_redis_gets_the_password_of_every_user() -> None:
    template = (CHECKOUT / "docker" / "redis" / "users.acl").read_text()
    asked = set(re.findall(r"^user .*@([A-Z]+)@", template, re.M))
    variables = container_of(workloads()["redis"])["env"]
    assert {f"REDIS_PASSWORD_{role}" for role in asked} <= {each["name"] for each in variables}
    files = of_kind("ConfigMap")["redis"]["data"]
    assert files["users.acl"].rstrip() == template.rstrip()
    rendering = (CHECKOUT / "docker" / "redis" / "render-acl").read_text()
    assert files["render-acl"].rstrip() == rendering.rstrip()


def test_every_variable_is_a_setting() -> None:
    known = {f"RANKMILL_{name.upper()}" for name in Settings.model_fields}
    texts = [path.read_text() for path in CHART.rglob("*") if path.suffix in (".yaml", ".tpl")]
    named = {name for text in texts for name in re.findall(r"\bRANKMILL_[A-Z_]+\b", text)}
    assert len(named) > 8 and named <= known


def test_each_kind_of_workers_is_scaled_by_the_queue_that_it_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "RANKMILL_MODEL_QUEUES", of_kind("ConfigMap")[RELEASE]["data"]["RANKMILL_MODEL_QUEUES"]
    )
    settings.cache_clear()
    try:
        scaled, budgets = of_kind("ScaledObject"), of_kind("PodDisruptionBudget")
        assert (
            set(scaled) == {"worker-h100", "worker-l4", "worker-cpu"} == set(budgets) - {"control"}
        )
        for name, each in scaled.items():
            arguments = container_of(workloads()[name])["args"]
            model = arguments[-1] if "--model" in arguments else None
            queue = score_queue(model) if model else SCORE_QUEUE
            assert model is None or queue != SCORE_QUEUE
            (trigger,) = each["spec"]["triggers"]
            assert trigger["metadata"]["listName"] == queue
            assert each["spec"]["scaleTargetRef"]["name"] == f"{RELEASE}-{name}"
            assert trigger["authenticationRef"]["name"] == f"{RELEASE}-keda"
    finally:
        settings.cache_clear()


def test_keda_and_the_pods_reach_the_same_redis() -> None:
    for variant, address, database, tls in (
        ("as shipped", f"{RELEASE}-redis:6379", "0", "false"),
        ("a Redis elsewhere", "redis.example.com:6380", "1", "true"),
    ):
        options = VARIANTS[variant]
        for each in of_kind("ScaledObject", *options).values():
            metadata = each["spec"]["triggers"][0]["metadata"]
            assert (metadata["address"], metadata["enableTLS"]) == (address, tls)
            assert metadata["databaseIndex"] == database
        urls = {
            variable["value"]
            for workload in workloads(*options).values()
            for variable in container_of(workload)["env"]
            if variable["name"] == "RANKMILL_BROKER_URL"
        }
        (url,) = urls
        assert url.startswith("rediss://" if tls == "true" else "redis://")
        assert f"://$(REDIS_USERNAME):$(REDIS_PASSWORD)@{address}/{database}" in url


def test_keda_and_the_pods_ask_the_same_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    options = VARIANTS["sentinels"]
    (login,) = of_kind("TriggerAuthentication", *options).values()
    password = {"parameter": "sentinelPassword", "name": "sentinels", "key": "password"}
    assert password in login["spec"]["secretTargetRef"]
    secret = {"secretKeyRef": {"name": "sentinels", "key": "password"}}
    triggers = [each["spec"]["triggers"][0] for each in of_kind("ScaledObject", *options).values()]
    containers = map(container_of, workloads(*options).values())
    given = [{each["name"]: each for each in container["env"]} for container in containers]
    connecting = [variables for variables in given if "RANKMILL_BROKER_URL" in variables]
    assert len(connecting) >= 6
    for variables in connecting:
        assert variables["RANKMILL_BROKER_SENTINEL_PASSWORD"]["valueFrom"] == secret
        for name, each in variables.items():
            if name.startswith("RANKMILL_BROKER") and "value" in each:
                monkeypatch.setenv(name, re.sub(r"\$\((\w+)\)", r"\1", each["value"]))
        read = Settings()
        place = sentinels(read.broker_url)
        assert (place.username, place.password) == ("REDIS_USERNAME", "REDIS_PASSWORD")
        for trigger in triggers:
            assert trigger["type"] == "redis-sentinel"
            asked = trigger["metadata"]
            assert asked["addresses"] == ",".join(f"{h}:{port}" for h, port in place.addresses)
            assert asked["databaseIndex"] == str(place.database) == "2"
            assert asked["sentinelMaster"] == read.broker_master == "night"
            assert asked["sentinelUsername"] == read.broker_sentinel_user == "asker"
            assert asked["enableTLS"] == str(read.broker_tls).lower() == "true"


def test_the_alerts_are_the_shipped_ones_and_every_metric_is_scraped() -> None:
    rules = yaml.safe_load((CHECKOUT / "docker" / "prometheus" / "rules.yml").read_text())
    assert of_kind("PrometheusRule")[RELEASE]["spec"] == rules
    scraped = yaml.safe_load((CHECKOUT / "docker" / "prometheus" / "prometheus.yml").read_text())
    jobs = {each["job_name"] for each in scraped["scrape_configs"]}
    services = of_kind("Service")
    served = {
        name
        for name, workload in workloads().items()
        for port in container_of(workload).get("ports", [])
        if port["name"].startswith("metrics")
    }
    monitors = of_kind("ServiceMonitor")
    assert set(monitors) == served
    for name, monitor in monitors.items():
        service = services[name]
        assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
        ports = {each["name"]: each["targetPort"] for each in service["spec"]["ports"]}
        assert [each["port"] for each in monitor["spec"]["endpoints"]] == list(ports)
        named = {each["name"] for each in container_of(workloads()[name])["ports"]}
        assert set(ports.values()) <= named
        for endpoint in monitor["spec"]["endpoints"]:
            (relabeling,) = endpoint["relabelings"]
            assert relabeling["targetLabel"] == "job" and relabeling["replacement"] in jobs


def test_each_selector_finds_the_pods_of_one_workload() -> None:
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"] for name, each in workloads().items()
    }
    selectors = {
        (each["kind"], each["metadata"]["name"]): selector.get("matchLabels", selector)
        for each in rendered()
        if each["kind"] in ("Deployment", "StatefulSet", "Service", "PodDisruptionBudget")
        for selector in [each["spec"]["selector"]]
    }
    for (kind, name), selector in selectors.items():
        found = [part for part, of_pod in labels.items() if selector.items() <= of_pod.items()]
        assert found == [name.removeprefix(f"{RELEASE}-")], kind


def test_versions_are_pinned_to_that_of_the_project() -> None:
    (version,) = re.findall(
        r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE
    )
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version
    for name, workload in workloads(*PULL).items():
        image = container_of(workload)["image"]
        assert not image.endswith(":latest") and ":" in image, name
        assert name == "redis" or image.endswith(f":{version}"), name


def test_a_job_that_pulls_has_a_name_that_follows_model_and_image() -> None:
    def name(*options: str) -> str:
        (job,) = (each for each in rendered(*options) if each["kind"] == "Job")
        return str(job["metadata"]["name"])

    other = ("--set", "models.pull={BAAI/bge-reranker-base}")
    assert len({name(*PULL), name(*other), name(*PULL, "--set", "image.tag=9.9.9")}) == 3
    assert name(*PULL) == name(*PULL, "--set", "control.replicas=1")


def test_network_policies_cover_every_pod_and_port() -> None:
    policies = of_kind("NetworkPolicy")
    (only,) = policies["redis"]["spec"]["ingress"]
    assert len(only["from"]) == 2 and only["ports"] == [{"port": "redis"}]
    (open_ports,) = policies[RELEASE]["spec"]["ingress"]
    (metrics, flower) = open_ports["ports"]
    served = {
        port["containerPort"]
        for name, workload in workloads(*VARIANTS["eight GPUs in a pod"]).items()
        if name != "redis"
        for port in container_of(workload).get("ports", [])
    }
    allowed = {*range(metrics["port"], metrics["endPort"] + 1), flower["port"]}
    assert served <= allowed and len(served) >= 9


def test_the_chart_names_no_file_that_is_a_copy() -> None:
    for path in (CHART / "files").iterdir():
        assert path.is_symlink() and path.resolve().is_relative_to(CHECKOUT / "docker")
    assert Path(CHART / "files" / "rules.yml").exists()
