"""Every family's encoder as .pt2 and .onnx: what is read back gives the same features, for any number of clips."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter

from fbm_dist.inference.archive import open_program
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry import export_encoder, fresh_encoder
from fbm_dist.registry.exports import onnx as onnx_export
from fbm_dist.registry.exports import write
from fbm_dist.registry.exports.agreement import check_agrees, random_clips
from fbm_dist.registry.folder import Description
from fbm_dist.schema import ClipSpec

TINY: dict[str, dict[str, Any]] = {
    "fbm": {"family": "fbm", "size": 64, "width": 0.05},
    "autoencoder": {"family": "autoencoder", "size": 64, "width": 0.05},
    "motion_mask": {"family": "motion_mask", "size": 67, "width": 0.05, "norm": "batch"},
    "coherency": {"family": "coherency", "size": 67, "width": 0.05},
    "alexnet": {"family": "coherency", "network": "alexnet", "size": 67, "width": 0.05, "frames": 2},
    "cifar_quick": {"family": "coherency", "network": "cifar_quick", "size": 32, "width": 0.2},
    "googlenet": {"family": "coherency", "network": "googlenet", "size": 64, "width": 0.05},
    "drnet": {"family": "drnet", "width": 0.1, "pose": "resnet"},
    "drnet_vgg": {"family": "drnet", "width": 0.1, "content": "vgg", "skips": True},
    "drnet_autoencoder": {"family": "drnet_autoencoder", "width": 0.1},
    "drnet_prediction": {"family": "drnet_prediction", "hidden": 8, "trunk": {"family": "drnet", "width": 0.1}},
    "ae_lstm": {"family": "drnet_prediction", "hidden": 8, "trunk": {"family": "drnet_autoencoder", "width": 0.1}},
}
AS_ONNX = ("fbm", "motion_mask", "alexnet", "googlenet", "drnet", "ae_lstm")  # the others are of the same operators


def made(name: str) -> tuple[Encoder, Description]:
    objective = TypeAdapter(Pretraining).validate_json(json.dumps(TINY[name]))
    encoder = fresh_encoder(objective, seed=3).eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, objective.frames, objective.size, objective.size))
    clip = ClipSpec(frames=objective.frames, size=objective.size, mask=False)
    lengths = {name: value.shape[1] for name, value in features.items()}
    description = Description(
        objective=objective,
        clip=clip,
        features=lengths,
        sha256="0" * 64,
        parameters=sum(p.numel() for p in encoder.parameters()),
    )
    return encoder, description


def test_no_family_is_left_out() -> None:
    union = get_args(get_args(Pretraining)[0])
    assert {get_args(one.model_fields["family"].annotation)[0] for one in union} == {
        tiny["family"] for tiny in TINY.values()
    }


@pytest.mark.parametrize("name", TINY)
def test_a_program_gives_the_same_and_holds_no_pickle(name: str, tmp_path: Path) -> None:
    encoder, description = made(name)
    digest, far = export_encoder(encoder, description, tmp_path / "new" / "x.pt2", source="models:/x/1")
    content = (tmp_path / "new" / "x.pt2").read_bytes()
    assert far <= 1e-5
    program = open_program(content, "x.pt2").module()
    torch_alone = torch.export.load(str(tmp_path / "new" / "x.pt2")).module()
    video = random_clips(description, 5)
    with torch.no_grad():
        for group, value in encoder(video).items():
            torch.testing.assert_close(program(video)[group], value, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(torch_alone(video)[group], value, rtol=1e-4, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "new" / "x.pt2") as archive:
        about = next(member for member in archive.namelist() if member.endswith("extra/encoder.json"))
        assert json.loads(archive.read(about))["source"] == "models:/x/1"
        assert not [member for member in archive.infolist() if member.filename.endswith(".pt") and member.file_size]
    assert str(Path(__file__).parents[4]).encode() not in content, "no names of this machine's files"
    assert hashlib.sha256(content).hexdigest() == digest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.pt2"]


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    encoder, description = made("cifar_quick")
    assert len({export_encoder(encoder, description, tmp_path / f"{i}.pt2")[0] for i in range(2)}) == 1


@pytest.mark.parametrize("name", AS_ONNX)
def test_onnx_gives_the_same_for_any_number_of_clips(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    encoder, description = made(name)
    _, far = export_encoder(encoder, description, tmp_path / "x.onnx")
    assert far <= 1e-4
    session = runtime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(description.features)
    batch, *rest = session.get_inputs()[0].shape
    assert isinstance(batch, str), "the number of clips is open"
    assert rest == [3, description.objective.frames, description.objective.size, description.objective.size]
    video = random_clips(description, 5)
    with torch.no_grad():
        wanted = encoder(video)
    for value, found in zip(wanted.values(), session.run(None, {"video": video.numpy()}), strict=True):
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(torch.from_numpy(found), value, rtol=0, atol=1e-4 * scale)


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, description = made("cifar_quick")
    real = write.open_program

    class Wrong:
        def __init__(self, program: Any) -> None:
            self.program = program

        def module(self) -> Any:
            call = self.program.module()
            return lambda video: {name: value + 0.01 for name, value in call(video).items()}

    monkeypatch.setattr(write, "open_program", lambda content, name: Wrong(real(content, name)))
    with pytest.raises(ValueError, match=r"x\.pt2: its values of fc6 are 0\.01 from the original's") as caught:
        export_encoder(encoder, description, tmp_path / "x.pt2")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_names_and_shapes_do_not_agree() -> None:
    one = {"a": torch.zeros(2, 3)}
    clips = [torch.zeros(2, 3)]
    with pytest.raises(ValueError, match="gives b, and the original a"):
        check_agrees(lambda _: {"b": one["a"]}, lambda _: one, clips, "x")
    with pytest.raises(ValueError, match=r"gives a of \(2, 4\), not \(2, 3\)"):
        check_agrees(lambda _: {"a": torch.zeros(2, 4)}, lambda _: one, clips, "x")
    with pytest.raises(ValueError, match="are nan from"):
        check_agrees(lambda _: {"a": torch.full((2, 3), torch.nan)}, lambda _: one, clips, "x")


def test_a_missing_extra_and_another_kind_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, description = made("cifar_quick")
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package_here"))
    with pytest.raises(ValueError, match=r"needs no_such_package_here: pip install 'fbm-dist\[onnx\]'"):
        export_encoder(encoder, description, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"ends in \.pt2 or \.onnx"):
        export_encoder(encoder, description, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


class Odd(Encoder):
    """An encoder that torch.export cannot follow: what it does depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, video: Any) -> Any:
        mean = video.flatten(1).mean(1, keepdim=True) * self.weight
        return {"fc6": mean if float(mean.sum()) > 0 else -mean}


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    _, description = made("cifar_quick")
    with pytest.raises(ValueError, match="coherency encoder cannot be exported") as caught:
        export_encoder(Odd().eval(), description, tmp_path / "x.pt2")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
