"""Servers and stores: what the tests of remote inputs start from."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from data_tools.places import Place, place
from data_tools.sources import download
from tests.data_tools.sources.web import Web, web_server
from tests.object_store import new_bucket, s3_server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as serve:
        yield serve


@pytest.fixture(scope="package")
def s3() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def bucket(s3: None) -> str:
    """s3://NAME of an empty bucket."""
    return f"s3://{new_bucket()}"


@pytest.fixture
def memory() -> Place:
    return place(f"memory://{uuid.uuid4().hex}")
