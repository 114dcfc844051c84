"""Networks from files: the contract, and what does not keep it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_tools.segmenter import normalised
from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.methods.network import ExportedNetwork
from tests.fbm_dist.evaluation.segmentation.conftest import WORLD, Bright, export
from tests.fbm_dist.evaluation.segmentation.drawn import scene


class Logits(nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return 9 * frame.mean(1, keepdim=True)


class Broken(nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return frame.mean(1, keepdim=True) * float("nan")


class Flat(nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return frame.mean(1).sigmoid()


class Pair(nn.Module):
    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        return frame.sigmoid(), frame


def test_scores_of_each_frame(films: Path, network: Path) -> None:
    method = ExportedNetwork(network, WORLD.device)
    assert (method.row, method.uri, method.side) == ("network bright", str(network), 64)
    assert method.sha256 is not None
    (hike,) = find_sequences([films], names=["hike"])
    scores = list(method.scores(hike))
    assert [score.shape for score in scores] == [(16, 16)] * 6
    for index, score in enumerate(scores):
        truth = scene(index)[1].reshape(16, 3, 16, 4).mean((1, 3))  # 48x64 pixels on 16x16
        assert score[truth == 1].min() > 0.9
        assert score[truth == 0].max() < 0.1


def test_pixels_as_networks_take_them() -> None:
    found = normalised(np.array([[[[0, 255, 51]]]], np.uint8))
    assert found.shape == (1, 3, 1, 1)
    assert found.ravel().tolist() == pytest.approx([-1, 1, -0.6])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Logits, r"gives scores from .*; they must be in \[0, 1\] \(after the sigmoid\)"),
        (Broken, "gives NaN or infinite scores"),
        (Flat, r"gives \(1, 64, 64\) for 1 frames; it must give \(1, 1, h, w\)"),
        (Pair, "gives a tuple; it must give one tensor"),
    ],
)
def test_what_is_no_score_is_refused(kind: type[nn.Module], said: str, films: Path, tmp_path: Path) -> None:
    method = ExportedNetwork(export(kind(), tmp_path / "net.pt2"), WORLD.device)
    with pytest.raises(ValueError, match=said):
        list(method.scores(find_sequences([films])[0]))


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    def refused(path: Path, said: str) -> None:
        with pytest.raises(ValueError, match=said) as error:
            ExportedNetwork(path, WORLD.device)
        assert "torch.export.save" in str(error.value), "it says what to do"
        assert "\n" not in str(error.value)

    refused(tmp_path / "no.pt2", "no such network")
    script = tmp_path / "net.pt"
    torch.save(Bright().state_dict(), script)
    refused(script, "a network's file ends in .pt2")
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(b"no archive")
    refused(damaged, "is no exported program")
    refused(export(Bright(), tmp_path / "wide.pt2", (1, 3, 64, 128)), re.escape("takes (1, 3, 64, 128)"))
    anyone = torch.export.Dim("batch", min=1, max=8)
    open_size = torch.export.export(Bright().eval(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=({0: anyone},))
    torch.export.save(open_size, tmp_path / "open.pt2")
    refused(tmp_path / "open.pt2", "one whose size is open")
