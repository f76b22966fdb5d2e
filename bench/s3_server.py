"""An S3 endpoint with an empty bucket, in a process of its own; prints its URL."""

from __future__ import annotations

import os
import time

import boto3

from tests.s3 import BUCKET, s3_endpoint, s3_environment

with s3_endpoint() as url:
    os.environ.update(s3_environment(url))
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    print(url, flush=True)
    while True:
        time.sleep(60)
