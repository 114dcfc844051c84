"""Small data sets and a private cache folder for the loader's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fbm_dist.schema import ClipSpec, Data, Filter
from tests.datasets import write_dataset

SMALL: dict[str, Any] = {"frames": 6, "size": 32}


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FBM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def vp9(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("vp9") / "data")


@pytest.fixture(scope="session")
def data_of() -> Callable[..., Data]:
    """Data(path, clip settings, filter=..., other keys): small clips unless it says otherwise."""

    def make(path: Path, filter: Filter | None = None, decode: Any = "auto", share: float = 0.01, **clip: Any) -> Data:
        spec = ClipSpec(**{**SMALL, **clip})
        return Data(path=path, clip=spec, filter=filter or Filter(), decode=decode, max_undecodable=share)

    return make
