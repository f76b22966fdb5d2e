"""`rankmill worker`, `exporter`, `flower`, `beat` and `up`, which run until they are stopped."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from producer.cli.console import Console, say, warn
from producer.cli.fact_lines import facts_text
from producer.cli.options import DeviceFlag
from producer.cluster.local import Device, devices, worker_command
from producer.cluster.up import Cluster, beat_command, has_flower, run_cluster
from rankmill.broker import SCORE_QUEUE, Role, queues_of, score_queue
from rankmill.errors import InputError
from rankmill.settings import CHECKOUT, settings
from rankmill.shown import masked

# A long preparation must not keep short work, such as the end of another job, from being done.
_CONTROL_PROCESSES = 3


def worker(
    role: Annotated[
        Role,
        typer.Option(help="score; control: submit, prepare and finalize, without torch; all"),
    ] = "all",
    model: Annotated[
        str | None, typer.Option(help="Score only this model of RANKMILL_MODEL_QUEUES")
    ] = None,
    device: DeviceFlag = None,
    name: Annotated[
        str, typer.Option(help="Prefix of the worker's name", show_default="rankmill")
    ] = "",
) -> None:
    """Start this machine's workers.

    One Celery worker per device, for the cluster of RANKMILL_BROKER_URL.
    """
    settings()  # a wrong setting is reported here, not by a worker
    if role == "control" and model is not None:
        raise typer.BadParameter("--role control scores nothing; leave out --model")
    queues = queues_of(role)
    if model is not None:
        queues = (score_queue(model),)
        if queues == (SCORE_QUEUE,):
            named = ", ".join(settings().model_queues or ()) or "none"
            raise InputError(
                f"--model {model} has no queue of its own; name it in RANKMILL_MODEL_QUEUES of "
                f"every process (now: {named})"
            )
    if role == "control":
        command = worker_command(name or "control", queues, _CONTROL_PROCESSES)
        no_device = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_DEVICE": "cpu"}
        _become(command, Device("control", no_device))
    chosen = devices(settings().device)
    commands = [worker_command(f"{name or 'rankmill'}-{each.name}", queues) for each in chosen]
    if len(chosen) == 1:
        _become(commands[0], chosen[0])
    from producer.cluster.supervise import WorkerStart, supervise

    starts, port = [], settings().metrics_port
    for n, (each, command) in enumerate(zip(chosen, commands, strict=True)):
        # Each worker serves its own metrics, on successive ports.
        metrics = {"RANKMILL_METRICS_PORT": str(port + n)} if port else {}
        starts.append(WorkerStart(each.name, command, {**each.environment, **metrics}))
    sys.exit(supervise(starts, settings()))


def exporter() -> None:
    """Serve the cluster's metrics to Prometheus.

    Jobs, queues, workers and Redis, at RANKMILL_METRICS_HOST and RANKMILL_METRICS_PORT.
    """
    from producer.cluster.exporter import serve

    try:
        serve(settings())
    except KeyboardInterrupt:  # its normal end
        pass


def flower(
    address: Annotated[
        str, typer.Option(help="Address to listen on; put TLS in front of other machines")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one")
    ] = 5555,
    history: Annotated[
        Path | None, typer.Option(help="File that keeps the history", show_default="none")
    ] = None,
    allow_control: Annotated[
        bool, typer.Option("--allow-control", help="Also allow it to submit and shut down")
    ] = False,
    url_prefix: Annotated[
        str,
        typer.Option(
            "--url-prefix", help="Serve below this path, such as /ops/flower", show_default="none"
        ),
    ] = "",
) -> None:
    """Serve Flower, a dashboard of the cluster.

    Shows workers and shards in a browser, to the users of RANKMILL_FLOWER_BASIC_AUTH.
    """
    from producer.cluster.flower import Dashboard, serve

    where = None if history is None else history.absolute()
    serve(Dashboard(address, port, where, allow_control, url_prefix), settings())


def beat() -> None:
    """Start the clock of the schedules.

    Celery's beat with RedBeat, for the cluster of RANKMILL_BROKER_URL. Several may run: one works.
    """
    settings()
    _become(beat_command(), Device("beat"))


def up(
    device: DeviceFlag = None,
    flower_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Flower; 0 for a free one")
    ] = 5555,
    with_flower: Annotated[
        bool, typer.Option("--flower/--no-flower", help="Serve Flower, the dashboard")
    ] = True,
    with_beat: Annotated[bool, typer.Option("--beat/--no-beat", help="Run schedules")] = True,
) -> None:
    """Run a whole cluster on this machine.

    Redis, a worker per device, Flower and beat, until Ctrl-C. With RANKMILL_BROKER_URL it uses that
    Redis.
    """
    if with_flower and not has_flower():
        warn("without Flower, which is not installed: pip install 'rankmill[flower]'")
        with_flower = False
    chosen = devices(settings().device)
    for surprise in sorted({each.surprise for each in chosen if each.surprise}):
        warn(surprise)
    say("starting the cluster; Ctrl-C stops all of it")
    try:
        run_cluster(chosen, flower_port if with_flower else None, with_beat, _show)
    except KeyboardInterrupt:  # its normal end
        say("stopped; unfinished jobs go on at the next start")


def _show(cluster: Cluster) -> None:
    parts = [f"{len(cluster.workers)} on {', '.join(cluster.workers)}"]
    parts += ["beat"] if cluster.has_beat else []
    login = f", login {cluster.login}" if cluster.login else ""
    facts = [
        ("workers", ", ".join(parts)),
        ("broker", masked(cluster.broker_url)),
        ("flower", f"{cluster.flower}{login}" if cluster.flower else ""),
        ("logs", str(cluster.folder)),
        ("next", f"export RANKMILL_BROKER_URL={shlex.quote(masked(cluster.broker_url))}"),
        ("", "rankmill submit candidates.parquet scored/"),
        ("", "rankmill watch scored/"),
    ]
    shown = [(name, value) for name, value in facts if value]
    Console().print(facts_text(shown), soft_wrap=True)
    sys.stdout.flush()


def _become(command: list[str], device: Device) -> None:
    os.chdir(CHECKOUT)
    os.execve(command[0], command, {**os.environ, **device.environment})
