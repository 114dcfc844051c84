"""prepare from and to object storage: the bytes are those that a disk gets, and what was killed goes on."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from data_tools.building.lock import LOCK, exclusive
from data_tools.building.pipeline import prepare
from data_tools.care.verify import verify
from data_tools.config import load
from data_tools.dataset import read_manifest
from data_tools.places import place
from data_tools.schema import Prepare, Verify
from tests import object_store
from tests.films import files, film

OPTIONS = ("masks.kind=none", "short_side=64", "workers=2", "shard_bytes=30000")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store.s3_server():
        yield object_store.new_bucket()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote") / "films"
    for i in range(4):
        film(root / f"{i}.mp4", (2 * i, 40), (2 * i + 1, 30))
    (root / "labels.csv").write_text("path,id,action,licence\n0.mp4,yfcc-0,walk,CC0\n1.mp4,yfcc-1,run,CC-BY\n")
    return root


def settings(source: str | Path, output: str | Path, *more: str) -> Prepare:
    return load(Prepare, None, [f"input={source}", f"output={output}", *OPTIONS, *more])


def contents(url: str) -> dict[str, bytes]:
    files = fsspec.filesystem("s3", use_listings_cache=False)
    root = url.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


@pytest.fixture(scope="module")
def wanted(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("local") / "data"
    prepare(settings(films, output))
    return files(output)


def test_s3_to_s3_gives_the_bytes_of_a_disk(bucket: str, films: Path, wanted: dict[str, bytes]) -> None:
    fsspec.filesystem("s3").put(f"{films}/", f"{bucket}/films/", recursive=True)
    url = f"s3://{bucket}/data"
    assert prepare(settings(f"s3://{bucket}/films", url)).used == 4
    found = contents(url)
    assert set(found) == set(wanted), "and no lock or staging is left"
    local = {".identities.jsonl"}  # etags there, times of files here
    assert {n: d for n, d in found.items() if n not in local} == {n: d for n, d in wanted.items() if n not in local}
    rows = read_manifest(place(url)).to_pylist()
    assert {(r["source"], r["id"], r["licence"]) for r in rows} >= {("0.mp4", "yfcc-0", "CC0"), ("3.mp4", None, None)}
    report = verify(load(Verify, None, [f"path={url}"]))
    assert report.problems == []
    assert prepare(settings(f"s3://{bucket}/films", url)).new_clips == 0


def test_a_run_that_died_in_object_storage_goes_on(
    bucket: str, films: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import data_tools.building.packing as packing

    url = f"s3://{bucket}/died"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "commit_snapshot", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(films, url))
    with pytest.raises(ValueError, match="an unfinished data set; run the same `prepare` again"):
        read_manifest(place(url))
    prepare(settings(films, url))
    assert contents(url) == wanted


def test_one_writer_at_a_time_in_object_storage(bucket: str) -> None:
    root = place(f"s3://{bucket}/locked")
    with exclusive(root, "prepare"):
        while not (root / LOCK).exists():
            pass
        again = exclusive(root, "scrub")
        with pytest.raises(ValueError, match=r"another `scrub` \(process \d+ of .*\) is at work here"):
            again.__enter__()
    assert not (root / LOCK).exists()


def test_a_table_of_urls(films: Path, tmp_path: Path) -> None:
    shutil.copytree(films, tmp_path / "served")
    (tmp_path / "served/broken.mp4").write_bytes(b"no film" * 100)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    lines = ["Photo ID\tDownload URL\tLicense", f"77\t{base}/0.mp4?sig=secret\tCC-BY", f"78\t{base}/gone.mp4\tCC0"]
    (tmp_path / "yfcc.tsv").write_text("\n".join([*lines, f"79\t{base}/broken.mp4\tCC0", f"80\t{base}/1.mp4\tCC0", ""]))
    (tmp_path / "gone").write_text("80\n")
    columns = "columns={path: Download URL, id: Photo ID, licence: License}"
    try:
        summary = prepare(settings(tmp_path / "yfcc.tsv", tmp_path / "data", columns, f"optouts={tmp_path / 'gone'}"))
    finally:
        server.shutdown()
    assert (summary.films, summary.used) == (4, 1)
    rows = read_manifest(tmp_path / "data").to_pylist()
    assert {(r["id"], r["licence"]) for r in rows} == {("77", "CC-BY")}
    text = (tmp_path / "data/films.jsonl").read_text()
    assert "secret" not in text
    assert "HTTP 404" in text
    assert "opted out" in text
    assert "Invalid data" in text
