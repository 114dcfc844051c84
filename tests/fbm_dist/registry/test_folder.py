"""An encoder folder: what is saved comes back bit for bit, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.registry.folder import (
    fresh_encoder,
    read_description,
    read_encoder,
    save_encoder,
    weights_digest,
)
from fbm_dist.schema import ClipSpec

CONFIG = FBMConfig(size=64, width=0.05)
CLIP = ClipSpec(size=64, mirror=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(fresh_encoder(CONFIG, seed=1), CONFIG, CLIP, tmp_path / "run" / "encoder", {"data_digest": "abc"})
    return tmp_path / "run" / "encoder"


def test_round_trip_is_bit_for_bit_and_in_eval_mode(folder: Path) -> None:
    loaded = read_encoder(folder)
    saved = fresh_encoder(CONFIG, seed=1)
    assert not loaded.training
    assert weights_digest(loaded) == weights_digest(saved)
    assert weights_digest(loaded) != weights_digest(fresh_encoder(CONFIG, seed=2))
    video = torch.rand(2, 3, 16, 64, 64) * 2 - 1
    with torch.no_grad():
        for name, value in saved.eval()(video).items():
            assert torch.equal(loaded(video)[name], value)


def test_description_says_how_to_build_and_feed_it(folder: Path) -> None:
    description = read_description(folder.parent)  # the run's folder will do
    assert description.objective == CONFIG
    assert description.clip == CLIP
    assert description.info == {"data_digest": "abc"}
    with torch.no_grad():
        features = read_encoder(folder)(torch.zeros(1, 3, 16, 64, 64))
    assert description.features == {name: value.shape[1] for name, value in features.items()}


def test_saving_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    encoder = fresh_encoder(CONFIG, seed=1).train()
    before = weights_digest(encoder)
    save_encoder(encoder, CONFIG, CLIP, tmp_path / "encoder", {})
    assert encoder.training
    assert weights_digest(encoder) == before, "a forward in train mode would have moved the BatchNorm statistics"


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    save_encoder(fresh_encoder(CONFIG, seed=2), CONFIG, CLIP, folder, {})
    assert weights_digest(read_encoder(folder)) == weights_digest(fresh_encoder(CONFIG, seed=2))
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def test_a_failed_save_leaves_the_old_encoder(folder: Path) -> None:
    broken = fresh_encoder(CONFIG, seed=2)
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        save_encoder(broken, CONFIG, CLIP, folder, {})
    assert weights_digest(read_encoder(folder)) == weights_digest(fresh_encoder(CONFIG, seed=1))
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def test_fresh_encoder_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    fresh_encoder(CONFIG, seed=5)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_tampered_weights_are_refused(folder: Path, damage: str) -> None:
    weights = folder / "encoder.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(data[: len(data) // 2])
    else:
        weights.unlink()
    with pytest.raises(ValueError, match=r"fetch or save it again$") as caught:
        read_encoder(folder)
    assert "\n" not in str(caught.value)


def test_unknown_family_and_wrong_place_are_one_line(folder: Path, tmp_path: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["objective"]["family"] = "drone"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not an encoder that this version can load: objective") as caught:
        read_encoder(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is no folder"):
        read_encoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no config"):
        read_encoder(tmp_path)


def test_another_architecture_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["objective"]["width"] = 0.1
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not fit config\.json") as caught:
        read_encoder(folder)
    assert "\n" not in str(caught.value)


def redescribed(folder: Path, **changes: object) -> None:
    """Change config.json, whose checksum then vouches for whatever lies beside it."""
    config = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({**config, "sha256": digest, **changes}))


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_what_is_no_safetensors_file_is_refused_whatever_the_config_says(folder: Path, tmp_path: Path) -> None:
    weights = folder / "encoder.safetensors"
    good = weights.read_bytes()
    contents = {
        "a pickle": pickle.dumps(Touch(tmp_path / "reached")),
        "a header longer than the file": (1 << 40).to_bytes(8, "little") + good[8:],
        "a huge header": (99_000_000).to_bytes(8, "little") + good[8:],
        "a header of nothing": (0).to_bytes(8, "little") + good[8:],
        "a header that is no JSON": (10).to_bytes(8, "little") + b"not json!!" + good,
        "a header of another form": (10).to_bytes(8, "little") + b'{"a": 1}  ' + good,
        "cut short within the header": good[:100],
    }
    for what, content in contents.items():
        weights.write_bytes(content)
        redescribed(folder)
        with pytest.raises(ValueError, match=r"encoder\.safetensors: not a safetensors file") as caught:
            read_encoder(folder)
        assert "\n" not in str(caught.value), what
    weights.write_bytes(good[:-400])
    redescribed(folder)
    with pytest.raises(ValueError, match=r"encoder\.safetensors: does not fit config\.json"):
        read_encoder(folder)
    assert not (tmp_path / "reached").exists()


def test_a_config_of_a_giant_is_refused_by_its_file(tmp_path: Path) -> None:
    config = CoherencyConfig(network="cifar_quick", size=32, width=0.2)
    folder = tmp_path / "encoder"
    save_encoder(fresh_encoder(config, seed=1), config, ClipSpec(size=32, frames=1, mask=False), folder, {})
    described = json.loads((folder / "config.json").read_text())["objective"]
    redescribed(folder, objective={**described, "embedding": 10**12})  # would be hundreds of terabytes
    with pytest.raises(ValueError, match=r"'\S+' is F32 \[.*\] in the file and F32 \[1000000000000.* by config"):
        read_encoder(folder)


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "a b", "", "x" * 100, "a=b"])
def test_features_have_names_and_no_paths(folder: Path, name: str) -> None:
    redescribed(folder, features={name: 128})
    with pytest.raises(ValueError, match="not an encoder that this version can load: features") as caught:
        read_encoder(folder)
    assert "\n" not in str(caught.value)


def test_a_giant_config_is_not_parsed(folder: Path) -> None:
    with (folder / "config.json").open("ab") as file:
        file.truncate(17 << 20)
    with pytest.raises(ValueError, match="are no config of an encoder"):
        read_encoder(folder)
