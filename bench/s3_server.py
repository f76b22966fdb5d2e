"""An S3 endpoint for benchmarks: moto's server in a process of its own, with an empty bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

from rankmill import storage
from tests.support.s3 import BUCKET, s3_endpoint, s3_environment


@contextmanager
def s3_bucket() -> Iterator[str]:
    """Yield the name of an empty bucket.

    The environment of this process and its children is set to reach it.
    """
    command = [sys.executable, "-m", "bench.s3_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            os.environ.update(s3_environment(server.stdout.readline().strip()))
            storage.reconnect()  # of the bucket before, at another address
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield BUCKET
        finally:
            server.terminate()


def _serve() -> None:
    with s3_endpoint() as url:
        print(url, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    _serve()
