"""The log of `rankmill worker` about its workers."""

from __future__ import annotations

import json
import subprocess
import sys

from rankmill.devices.choice import EXIT_DEVICE_LOST

SCRIPT = """
import sys
from producer.cluster.supervise import WorkerStart, supervise
from rankmill.settings import Settings
code = "import sys, time; time.sleep(float(sys.argv[2])); sys.exit(int(sys.argv[1]))"
ends = [sys.executable, "-c", code]
sys.exit(supervise(
    [WorkerStart("one", [*ends, sys.argv[1], "0"]), WorkerStart("two", [*ends, "7", "1"])],
    Settings(log_format="json"),
))
"""


def test_the_end_of_a_worker_is_logged_as_json() -> None:
    command = [sys.executable, "-c", SCRIPT, str(EXIT_DEVICE_LOST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lost, ended = map(json.loads, done.stderr.splitlines())
    assert (lost["event"], lost["worker"]) == ("worker ended, device failed", "one")
    assert ended["event"] == "worker ended by itself, stopping the others"
    assert (ended["worker"], ended["exit_code"], ended["level"]) == ("two", 7, "error")
    assert done.returncode == 7
