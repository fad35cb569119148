"""A stand-in for an S3-compatible bucket: moto in a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "shop"


@contextmanager
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Point the AWS variables to an empty bucket of our own; the value is a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    client = boto3.client("s3", region_name="us-east-1")
    # moto keeps its buckets for the length of the process
    client.create_bucket(Bucket=BUCKET)
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    yield client
    server.stop()
