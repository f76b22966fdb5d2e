"""Take the pictures of Flower in docs/: a real job on two real workers, in a real Chromium.

python -m docs.flower_pictures docs
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome

from producer.cluster.local import running, start_redis, worker_command
from producer.jobs.submit import submit
from rankmill.settings import CHECKOUT
from tests.support.browser import chromium
from tests.support.dashboard import flower, rows, with_login
from tests.support.inputs import wait_for

_N_SHARDS_SEEN = 5
_WIDTH = 1740
_COLOURS = 64


def take(target: Path, scratch: Path, stack: ExitStack) -> None:
    """Write flower.png and flower-workers.png, of the demo's rows in the middle of a job."""
    os.environ["RANKMILL_BROKER_URL"] = stack.enter_context(start_redis())[0]
    os.environ["RANKMILL_WINDOW_PAIRS"] = "64"
    url = stack.enter_context(flower(scratch))
    for name in ("rankmill-cpu0", "rankmill-cpu1"):
        environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": "1"}
        stack.enter_context(running(worker_command(name), environment, scratch / f"{name}.log"))
    source = CHECKOUT / "examples" / "packages.parquet"
    submit(source, scratch / "first", model_id="null:4000").wait(timeout_s=120)  # they are awake
    job = submit(source, scratch / "out", model_id="demo", precision="fp32", top_k=10)
    driver = stack.enter_context(chromium(_WIDTH))
    wait_for(lambda: len(job.output.reported_shards()) >= _N_SHARDS_SEEN, within_s=300)
    driver.get(with_login(f"{url}/tasks"))

    def n_scoring() -> int:
        driver.refresh()
        wait_for(lambda: any("State" in row for row in rows(driver, "tasks-table")))
        return sum(row.get("State") == "SCORING" for row in rows(driver, "tasks-table"))

    wait_for(lambda: n_scoring() == 2)
    _save(driver, target / "flower.png")
    driver.get(f"{url}/workers")
    wait_for(lambda: [row.get("Active") for row in rows(driver, "workers-table")] == ["1", "1"])
    _save(driver, target / "flower-workers.png")


def _save(driver: Chrome, target: Path) -> None:
    taken = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
    taken.convert("RGB").quantize(_COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rankmill-"))
        take(Path(sys.argv[1]).absolute(), Path(folder), stack)
