"""Masks of a network from a file: what they are, where they are written down, and which files are refused."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from data_tools.building.pipeline import prepare
from data_tools.care.repair import repair
from data_tools.care.verify import verify
from data_tools.clips import settings_hash
from data_tools.config import ConfigError, load
from data_tools.dataset import read_dataset, read_manifest
from data_tools.masks import reachable, settled
from data_tools.schema import Prepare, Repair, Verify
from data_tools.segmenter import network_masks
from data_tools.shards import read_sample
from tests.datasets import destroy
from tests.films import files, film, ledger, settings

SIDE = 32


class Left(nn.Module):
    """Foreground is the left part of every frame, as wide as `share` says."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, frame: Tensor) -> Tensor:
        places = (torch.arange(16) + 0.5) / 16
        return torch.sigmoid(100 * (self.share - places)).expand(1, 1, 16, 16) + 0 * frame.mean()


class Logits(nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return 9 + frame.mean(1, keepdim=True)


def export(network: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, SIDE, SIDE)) -> Path:
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(shape),)), path)
    return path


def of(films: Path, output: Path, network: Path, *more: str) -> Prepare:
    return settings(
        films,
        output,
        "masks.kind=network",
        f"masks.network={network}",
        "masks.side=64",
        "workers=1",
        "pictures=single",
        *more,
    )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Left(0.25), tmp_path_factory.mktemp("networks") / "left.pt2")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film and a picture."""
    root = tmp_path_factory.mktemp("films")
    film(root / "a.mp4", (7, 24))
    Image.fromarray(np.zeros((72, 96, 3), np.uint8)).save(root / "single.png")
    return root


@pytest.fixture(scope="module")
def prepared(films: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of them, with the network's masks."""
    root = tmp_path_factory.mktemp("prepared") / "data"
    prepare(of(films, root, network))
    return root


def test_masks_and_where_they_come_from(prepared: Path, network: Path) -> None:
    """Made in worker processes, frame by frame; the file's digest is with every sample and with the data set's settings."""
    assert {source: outcome.status for source, outcome in ledger(prepared).items()} == {
        "a.mp4": "used",
        "single.png": "used",
    }
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    rows = read_manifest(prepared).to_pylist()
    assert sorted(row["num_frames"] for row in rows) == [1, 24]  # one frame shows no motion, but it has a mask
    for row in rows:
        sample = read_sample(prepared, row)
        assert sample.metadata.masks == "network"
        assert sample.metadata.versions["network"] == digest
        assert sample.metadata.versions["torch"]
        assert sample.mask is not None
        width = sample.mask.shape[2]
        assert sample.mask[:, :, : width // 5].min() > 250
        assert sample.mask[:, :, width // 3 :].max() < 5
    dataset = read_dataset(prepared)
    assert dataset is not None
    assert dataset.settings["masks"]["network_sha256"] == digest
    assert "network" not in dataset.settings["masks"], "where the file lies is nobody's business"
    assert verify(Verify(path=str(prepared), decoders=())).num_problems == 0


def test_the_same_file_elsewhere_goes_on_and_another_one_does_not(
    prepared: Path, films: Path, network: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    more = tmp_path / "more"
    film(more / "b.mp4", (8, 24))
    other = export(Left(0.5), tmp_path / "left.pt2")
    with pytest.raises(ConfigError, match=r"made with other settings \(masks.network_sha256 was .*give another output"):
        prepare(of(more, root, other))
    moved = tmp_path / "moved.pt2"
    shutil.copy(network, moved)
    prepare(of(more, root, moved))
    assert len(read_manifest(root)) == 3
    one, same, another = (settings_hash(settled(of(films, root, file))) for file in (network, moved, other))
    assert one == same != another, "other masks, other samples"


def test_settings_without_a_network_are_what_they_were(tmp_path: Path) -> None:
    """Data sets of before stay open to more films."""
    for kind in ("unlc", "none", "given"):
        shaping = load(Prepare, None, [f"input={tmp_path}", f"output={tmp_path}", f"masks.kind={kind}"]).shaping()
        assert set(shaping["masks"]) == {"kind", "side", "working_side", "unlc"}


def test_a_network_that_votes_beside_motion(films: Path, network: Path, tmp_path: Path) -> None:
    """uNLC's masks with the network's opinion; a single picture, in which nothing moves, has the network's alone."""
    root = tmp_path / "data"
    prepare(of(films, root, network, "masks.kind=combined", "masks.network_share=0.5"))
    dataset = read_dataset(root)
    assert dataset is not None
    assert dataset.settings["masks"]["network_share"] == 0.5
    for row in read_manifest(root).to_pylist():
        sample = read_sample(root, row)
        assert sample.metadata.masks == "combined"
        assert {"network", "torch", "scipy"} <= set(sample.metadata.versions)
        assert sample.mask is not None
        left = sample.mask.shape[2] // 5
        if len(sample.mask) == 1:
            assert sample.mask[:, :, :left].min() > 240
        else:
            assert sample.mask[:, :, :left].mean() > sample.mask[:, :, -left:].mean() + 50, "it was heard"
    assert verify(Verify(path=str(root), decoders=())).num_problems == 0
    with pytest.raises(ConfigError, match=r"made with other settings \(masks\.network_share was 0.5, is 0.1"):
        prepare(of(films, root, network, "masks.kind=combined"))


def test_a_pinned_digest(films: Path, network: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    assert settled(of(films, tmp_path, network, f"masks.network_sha256={digest}")).masks.network_sha256 == digest
    with pytest.raises(ValueError, match=r"its sha256 is .*another segmenter makes another data set"):
        settled(of(films, tmp_path, network, f"masks.network_sha256={'0' * 64}"))


def test_a_file_that_changes_on_the_way_is_seen(films: Path, tmp_path: Path) -> None:
    network = export(Left(0.25), tmp_path / "changing.pt2")
    known = settled(of(films, tmp_path, network))
    export(Left(0.5), network)
    with pytest.raises(ValueError, match="is another file than when this began"):
        network_masks([np.zeros((8, 8, 3), np.uint8)], known.masks)


def test_other_machines_get_a_copy(films: Path, network: Path, tmp_path: Path) -> None:
    """In the folder that all of them see; it is used in place of the file, which may lie on the driver's disk."""
    own = tmp_path / "own.pt2"
    own.write_bytes(network.read_bytes())
    known = reachable(settled(of(films, tmp_path, own)), tmp_path)
    own.unlink()
    (score,) = network_masks([np.zeros((8, 8, 3), np.uint8)], known.masks)
    assert score.shape == (16, 16)
    assert known.shaping() == settled(of(films, tmp_path, network)).shaping()
    plain = settings(films, tmp_path)
    assert reachable(settled(plain), tmp_path) == plain


def test_what_is_no_segmenter_is_refused_before_anything_is_made(films: Path, tmp_path: Path) -> None:
    def refused(path: Path, said: str) -> None:
        with pytest.raises(ValueError, match=said) as error:
            prepare(of(films, tmp_path / "data", path))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "data").exists()

    refused(tmp_path / "no.pt2", "no such network; export a network that takes one frame")
    (tmp_path / "weights.pt").write_bytes(b"")
    refused(tmp_path / "weights.pt", "a network's file ends in .pt2")
    (tmp_path / "damaged.pt2").write_bytes(b"no archive")
    refused(tmp_path / "damaged.pt2", "is no exported program")
    refused(export(Logits(), tmp_path / "wide.pt2", (1, 3, 64, 128)), r"takes \(1, 3, 64, 128\)")


def test_scores_that_are_none_are_refused(films: Path, tmp_path: Path) -> None:
    known = settled(of(films, tmp_path, export(Logits(), tmp_path / "logits.pt2")))
    with pytest.raises(
        ValueError, match=r"logits.pt2 gives scores from .*they must be in \[0, 1\] \(after the sigmoid\)"
    ):
        network_masks([np.zeros((8, 8, 3), np.uint8)], known.masks)


SEGMENTERS = """
import numpy as np

def bright(frame):
    return frame.mean(axis=2) / np.float32(255)

def wrong(frame):
    return frame

NONE = 0
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of somebody else's, which workers can import, too."""
    (tmp_path / "lib").mkdir()
    file = tmp_path / "lib" / "my_segmenters.py"
    file.write_text(SEGMENTERS)
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "my_segmenters", raising=False)
    return file


def test_a_function_of_a_module(films: Path, package: Path, tmp_path: Path) -> None:
    """Known by the file of its module; its scores are stored at the masks' size."""
    root = tmp_path / "data"
    prepare(of(films, root, Path("my_segmenters:bright")))
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    rows = read_manifest(root).to_pylist()
    assert len(rows) == 2
    for row in rows:
        sample = read_sample(root, row)
        assert sample.metadata.versions["network"] == digest
        assert sample.mask is not None
    pictures = [row for row in rows if row["num_frames"] == 1]
    black = read_sample(root, pictures[0])
    assert black.mask is not None
    assert black.mask.max() == 0
    known = settled(of(films, root, Path("my_segmenters:bright")))
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (score,) = network_masks([frame], known.masks)
    np.testing.assert_allclose(score, frame.mean(axis=2) / 255, atol=1e-6)
    assert reachable(known, tmp_path) == known, "it is imported where it is needed"
    package.write_text(SEGMENTERS + "# changed\n")
    with pytest.raises(ConfigError, match=r"masks\.network_sha256 was"):
        prepare(of(films, root, Path("my_segmenters:bright")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.to_be:found", "there is no module nowhere.to_be; install it, or put its folder on PYTHONPATH"),
        ("my_segmenters:missing", "my_segmenters has no function missing"),
        ("my_segmenters:NONE", "my_segmenters has no function NONE"),
    ],
)
def test_functions_that_are_none(films: Path, package: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prepare(of(films, tmp_path / "data", Path(name)))
    assert not (tmp_path / "data").exists()


def test_a_module_that_fails_and_scores_of_another_shape(films: Path, package: Path, tmp_path: Path) -> None:
    known = settled(of(films, tmp_path, Path("my_segmenters:wrong")))
    with pytest.raises(ValueError, match=r"my_segmenters:wrong gives \(1, 1, 8, 8, 3\) for 1 frames"):
        network_masks([np.zeros((8, 8, 3), np.uint8)], known.masks)
    package.write_text("raise RuntimeError('no licence')")
    sys.modules.pop("my_segmenters")
    with pytest.raises(ValueError, match="my_segmenters:bright cannot be imported: no licence"):
        settled(of(films, tmp_path, Path("my_segmenters:bright")))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["masks.kind=network"], "kind=network needs a segmenter; give network=NAME.pt2, or package.module:function"),
        (["masks.network=a.pt2"], "network belongs to kind=network or combined, and kind is unlc"),
        ([f"masks.network_sha256={'0' * 64}", "masks.kind=none"], "network_sha256 belongs to kind=network or combined"),
        (["masks.kind=network", "masks.network=a.pt2", "masks.network_sha256=12"], "network_sha256"),
    ],
)
def test_keys_that_do_not_belong_together(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(Prepare, None, ["input=a", "output=b", *given])


def test_repair_makes_clips_again_with_the_same_network_alone(
    prepared: Path, films: Path, network: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    whole = files(root)
    row = next(row for row in read_manifest(root).to_pylist() if row["num_frames"] > 1)
    destroy(root, row["key"], "mask.png")
    given: dict[str, Any] = {"path": str(root), "input": str(films), "workers": 1}
    with pytest.raises(ValueError, match=r"a network made its masks \(sha256 .*give its file, network=NAME.pt2"):
        repair(Repair(**given))
    with pytest.raises(ValueError, match="another segmenter makes another data set"):
        repair(Repair(**given, network=str(export(Left(0.5), tmp_path / "other.pt2"))))
    assert files(root) != whole
    repair(Repair(**given, network=str(network)))
    assert files(root) == whole
