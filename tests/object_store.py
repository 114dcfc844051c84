"""An S3 server in this process, found by the variables that a user would set."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest


@contextmanager
def s3_server() -> Iterator[None]:
    """Serve until the end of the block."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install -e '.[dev]'")
    served = pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")
    server = served.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    variables |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        _forget_clients()
        yield
    _forget_clients()
    server.stop()


def new_bucket() -> str:
    """The name of a new, empty bucket."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    return bucket


def _forget_clients() -> None:
    """fsspec remembers clients by their arguments: those of another server must not be used."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
