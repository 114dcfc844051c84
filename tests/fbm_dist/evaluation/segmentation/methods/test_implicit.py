"""Implicit foreground: which frames make a clip, weights of a run, and folders that have none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fbm_dist.config import dump, load
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.segmentation.config import Segmentation
from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.methods.implicit import (
    ImplicitForeground,
    of_run,
    version_of,
    window,
    with_random_weights,
)
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.objective import FBM
from fbm_dist.objectives.motion_mask.objective import MotionMask
from fbm_dist.registry import register
from fbm_dist.registry.client import connect
from fbm_dist.schema import ClipSpec, InitFrom, Run, Tracking
from fbm_dist.training.initialization import initialize
from tests.fbm_dist.evaluation.segmentation.conftest import WORLD
from tests.fbm_dist.evaluation.segmentation.drawn import write_film
from tests.runs import make_run


def test_windows() -> None:
    four = ClipSpec(frames=4)
    assert window(0, four, 6) == [0, 1, 2, 3]
    assert window(2, four, 6) == [2, 3, 4, 5]
    assert window(3, four, 6) == [3, 2, 1, 0], "what does not fit any more runs backwards"
    assert window(5, four, 6) == [5, 4, 3, 2]
    assert window(1, four, 3) == [1, 2, 1, 0], "a film shorter than the clip: to its end and back"
    assert window(0, four, 1) == [0, 0, 0, 0]
    assert window(0, ClipSpec(frames=3, stride=2), 5) == [0, 2, 4]
    assert window(4, ClipSpec(frames=3, stride=2), 5) == [4, 2, 0]
    assert window(1, ClipSpec(frames=3, offsets=(0, 1, 3)), 5) == [1, 2, 4]


def test_the_weights_of_the_run_segment_its_clips(fbm_run: Path, films: Path) -> None:
    method = of_run(fbm_run, batch=4, world=WORLD)
    assert method.row == "implicit tiny-fbm"
    (hike,) = find_sequences([films], names=["hike"])
    scores = list(method.scores(hike))
    assert [score.shape for score in scores] == [(64, 64)] * 6

    run = load(Run, fbm_run / "config.yaml")
    objective = run.objective.build()
    assert isinstance(objective, FBM)
    initialize(objective, InitFrom(source=str(fbm_run)), WORLD)
    for index in (0, 5):
        frames = [
            torch.from_numpy(hike.frame(i)).permute(2, 0, 1).float() / 127.5 - 1
            for i in window(index, run.data.clip, 6)
        ]
        video = torch.nn.functional.interpolate(torch.stack(frames), (64, 64), mode="bicubic").clamp(-1, 1)
        expected = objective.segment(video.transpose(0, 1)[None])[0, 0].numpy()
        assert np.corrcoef(scores[index].ravel(), expected.ravel())[0, 1] > 0.98, (
            "another interpolation, the same picture"
        )


def test_the_version_that_holds_the_measured_weights_is_tagged(
    fbm_run: Path, tmp_path: Path, evaluation: Callable[..., Segmentation]
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    objective = of_run(fbm_run, 4, WORLD).objective
    assert version_of(fbm_run, objective, uri) is None, "the run was not registered"
    client = connect(uri)
    version = register("tiny", fbm_run, tracking_uri=uri)
    run = tmp_path / "run"
    shutil.copytree(fbm_run, run)
    told = json.loads((run / "finished.json").read_text())
    told["summary"]["model_uri"] = f"models:/tiny/{version}"
    (run / "finished.json").write_text(json.dumps(told))
    assert version_of(run, objective, uri) == f"models:/tiny/{version}"
    connect(f"{uri}.other")
    assert version_of(run, objective, f"{uri}.other") is None, "another registry has no such version"
    drawn = with_random_weights(run, 7, 4, WORLD).objective
    assert version_of(run, drawn, uri) is None, "other weights"
    wanted = {"implicit": (run,), "baselines": (), "random": False, "max_frames": 1, "shown": 0}
    results = evaluate(evaluation(**wanted, tracking=Tracking(uri=uri)))
    (subject,) = results.subjects
    tags = client.get_model_version("tiny", version).tags
    assert subject.model == f"models:/tiny/{version}"
    found = results.metrics(subject.name)["J_mean.sequences"]
    assert float(tags["segmentation.J_mean.sequences"]) == pytest.approx(found, abs=1e-4)


class FirstFrame(FBM):
    """A segmenter whose score is how bright the first frame is."""

    def segment(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 h w"]:
        return (video[:, :, 0].mean(1, keepdim=True) + 1) / 2


def brightness(run: Run) -> ImplicitForeground:
    assert isinstance(run.objective, FBMConfig)
    return ImplicitForeground(run, FirstFrame(run.objective), 4, "x", "x", "x", WORLD.device)


def test_a_crop_covers_the_middle_of_the_frame(fbm_run: Path, tmp_path: Path) -> None:
    write_film(tmp_path / "hike", 3, size=(64, 128))
    (hike,) = find_sequences([tmp_path])
    run = load(Run, fbm_run / "config.yaml", ["data.clip.resize=crop"])
    score = next(iter(brightness(run).scores(hike)))
    assert score.shape == (64, 128)
    assert not score[:, :32].any()
    assert not score[:, 96:].any()
    assert score[:, 32:96] == pytest.approx(hike.frame(0)[:, 32:96].mean(2) / 255, abs=1e-3)


def test_each_frame_is_the_first_of_its_clip(fbm_run: Path, films: Path) -> None:
    (hike,) = find_sequences([films], names=["hike"])
    run = load(Run, fbm_run / "config.yaml")
    for index, score in enumerate(brightness(run).scores(hike)):
        own = hike.frame(index).mean(2) / 255
        assert score.reshape(16, 4, 16, 4).mean((1, 3)) == pytest.approx(
            own.reshape(16, 3, 16, 4).mean((1, 3)), abs=0.05
        )


def test_random_weights_are_drawn_by_seed(fbm_run: Path, films: Path) -> None:
    (surf,) = find_sequences([films], names=["surf"])
    before = torch.get_rng_state()
    one, same, other = (with_random_weights(fbm_run, seed, 4, WORLD) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before), "the process's own random state is left alone"
    assert one.identity == same.identity != other.identity
    first = [next(iter(method.scores(surf))) for method in (one, same, other)]
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).any()


def test_folders_without_a_whole_objective(fbm_run: Path, tmp_path: Path) -> None:
    for folder in (fbm_run / "encoder", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"there is no config.yaml; give a run's folder, with its checkpoints"):
            of_run(folder, 4, WORLD)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(fbm_run / "config.yaml", bare)
    shutil.copytree(fbm_run / "encoder", bare / "encoder")  # its checkpoints were cleared away
    with pytest.raises(ValueError, match=r"of the \d+ tensors of fbm; give a run's folder, with its checkpoints"):
        of_run(bare, 4, WORLD)


def test_an_objective_that_segments_nothing(fbm_run: Path, tmp_path: Path) -> None:
    text = (fbm_run / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(_without_fbm(text))
    with pytest.raises(
        ValueError,
        match=r"its objective, autoencoder, tells no foreground from background; give a run of fbm or motion_mask",
    ):
        of_run(tmp_path, 4, WORLD)


def _without_fbm(text: str) -> str:
    """The same run with the autoencoder as its objective."""
    lines, out, inside = text.splitlines(), [], False
    for line in lines:
        if line.startswith("objective:"):
            inside = True
            out += ["objective:", "  family: autoencoder", "  size: 64", "  width: 0.05"]
        elif inside and line.startswith(" "):
            continue
        else:
            inside = False
            out.append(line)
    return "\n".join(out)


def test_a_mask_network_sees_the_whole_frame_though_it_learnt_from_boxes(films: Path, tmp_path: Path) -> None:
    """Its row has its own name; the frame is squashed, not cropped: a score for all of it."""
    clip = {"frames": 1, "size": 67, "resize": "box", "frames_per_shot": 2}
    objective = {"family": "motion_mask", "size": 67, "width": 0.05}
    run = make_run(tmp_path / "run", objective=objective, data={"path": "nowhere", "clip": clip})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(dump(run))
    method = with_random_weights(tmp_path / "run", 0, 4, WORLD)
    assert method.row == "mask network run, random weights"
    (hike,) = find_sequences([films], names=["hike"])
    scores = list(method.scores(hike))
    assert [score.shape for score in scores] == [(67, 67)] * 6, "48x64 pixels, all of them"
    assert isinstance(method.segmenter, MotionMask)
    frame = torch.from_numpy(hike.frame(2)).permute(2, 0, 1)[None].float() / 127.5 - 1
    squashed = torch.nn.functional.interpolate(frame, (67, 67), mode="bicubic").clamp(-1, 1)
    expected = method.segmenter.segment(squashed[:, :, None])[0, 0].numpy()
    assert np.corrcoef(scores[2].ravel(), expected.ravel())[0, 1] > 0.98, "another interpolation, the same picture"
