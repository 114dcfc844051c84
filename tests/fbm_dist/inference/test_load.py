"""A pulled folder loads with torch alone, in a process that may import nothing else; and with its checksums or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fbm_dist import registry
from fbm_dist.inference import load
from fbm_dist.inference.sums import check, write_sums
from fbm_dist.objectives.drnet.config import DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.registry.exports.write import exported
from fbm_dist.registry.folder import read_description, read_encoder
from fbm_dist.schema import ClipSpec

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
ROOT = Path(__file__).parents[3]
CONFIG = FBMConfig(size=64, width=0.05)
# Whatever is neither Python's, nor torch's or what torch itself is installed with, nor this project's, cannot be imported.
HOOK = """
import importlib.abc, importlib.metadata, json, re, sys

def usual(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def needed(name, found):
    for line in importlib.metadata.requires(name) or ():
        one = usual(re.match(r"[A-Za-z0-9._-]+", line)[0])
        if one not in found and "extra ==" not in line:
            found.add(one)
            try:
                needed(one, found)
            except importlib.metadata.PackageNotFoundError:
                pass
    return found

ALLOWED = {"torch", "functorch", "torchgen", "fbm_dist", "data_tools", *sys.stdlib_module_names, *GIVEN}
packages = needed("torch", set())
for module, distributions in importlib.metadata.packages_distributions().items():
    if any(usual(one) in packages for one in distributions):
        ALLOWED.add(module)
GUESTS = {name for top in GIVEN for name in importlib.metadata.packages_distributions().get(top, ())}
INSTALLED = {"torch", *packages, *map(usual, GUESTS)}
ALLOWED -= {"pydantic", "safetensors", "jaxtyping", "upath"} - set(GIVEN)

class Only(importlib.abc.MetaPathFinder):
    # what is not allowed is not installed

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED and not name.startswith("_"):
            return None
        return next((spec for finder in self.finders if (spec := finder.find_spec(name, path, target))), None)

    def find_distributions(self, *given, **named):
        # torch asks for the versions of what it could use
        found = importlib.metadata.MetadataPathFinder.find_distributions(*given, **named)
        return [one for one in found if usual(one.name) in INSTALLED]

sys.meta_path[:] = [Only(list(sys.meta_path))]
"""
HEAVY = (
    "deepspeed",
    "mlflow",
    "ray",
    "nvidia.dali",
    "sklearn",
    "pyarrow",
    "fbm_dist.training",
    "fbm_dist.data",
    "fbm_dist.run",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pull` writes, as far as loading needs it."""
    folder = tmp_path_factory.mktemp("pulled") / "encoder"
    registry.save_encoder(registry.fresh_encoder(CONFIG, seed=5), CONFIG, ClipSpec(size=64), folder, {})
    content, _ = exported(read_encoder(folder), read_description(folder), "encoder.pt2")
    (folder / "encoder.pt2").write_bytes(content)
    write_sums(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "encoder")


def alone(folder: Path, given: tuple[str, ...], how: str) -> dict[str, list[str]]:
    """Load in a process of its own; names and shapes of the features of 3 clips, and what was imported."""
    code = f"GIVEN = {given!r}\n{HOOK}\n"
    code += f"from fbm_dist.inference import load\nimport torch\nencoder = load({str(folder)!r}{how})\n"
    code += "with torch.no_grad(): found = encoder(torch.zeros(3, 3, 16, 64, 64))\n"
    code += f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
    code += "tops = {name.split('.')[0] for name in sys.modules}\n"
    code += "wrong = sorted({'pydantic', 'safetensors', 'jaxtyping', 'upath'} & tops - set(GIVEN))\n"
    code += (
        "print(json.dumps({'features': [f'{k} {tuple(v.shape)}' for k, v in found.items()], 'heavy': heavy + wrong}))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


FEATURES = [f"{name} (3, 128)" for name in ("foreground", "background", "motion")]


@pytest.mark.slow  # a new interpreter imports torch
def test_the_program_needs_torch_alone(original: Path) -> None:
    assert alone(original, (), "") == {"features": FEATURES, "heavy": []}


@pytest.mark.slow
def test_the_module_needs_few_packages_more(original: Path) -> None:
    # safetensors, numpy, pydantic, jaxtyping, ruamel.yaml, universal-pathlib, pillow, and what these import
    given = ("safetensors", "numpy", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "jaxtyping")
    given += ("wadler_lindig", "ruamel", "upath", "pathlib_abc", "PIL")
    assert alone(original, given, ", exported=False") == {"features": FEATURES, "heavy": []}


def test_both_ways_give_the_same(original: Path) -> None:
    video = torch.rand(2, 3, 16, 64, 64) * 2 - 1
    program, module = load(original), load(original, exported=False)
    with torch.no_grad():
        found = program(video)
        for name, value in module(video).items():
            torch.testing.assert_close(found[name], value)
    module.train()(video)["motion"].sum().backward()
    assert all(p.grad is not None for name, p in module.named_parameters() if "motion" in name), "it can be trained"


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def test_a_program_moves_to_another_device_whole(device: str, tmp_path: Path) -> None:
    """An LSTM's first state is made in the graph, on the device that the graph says."""
    config = DrNetPredictionConfig(trunk=DrNetConfig(width=0.05), hidden=4, frames=3, n_past=1)
    folder = tmp_path / "encoder"
    clip = ClipSpec(size=64, frames=3, mask=False)
    registry.save_encoder(registry.fresh_encoder(config, seed=5), config, clip, folder, {})
    content, _ = exported(read_encoder(folder), read_description(folder), "encoder.pt2")
    (folder / "encoder.pt2").write_bytes(content)
    write_sums(folder)
    found = load(folder, device=device)(torch.zeros(2, 3, 3, 64, 64, device=device))
    assert {value.device.type for value in found.values()} == {device}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def elsewhere(path: Path) -> None:
    shutil.copy(path, path.parent.parent / "other")
    path.unlink()
    path.symlink_to(path.parent.parent / "other")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "changed": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "missing": Path.unlink,
    "a link": elsewhere,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("name", "exported"), [("encoder.pt2", True), ("encoder.safetensors", False), ("config.json", False)]
)
def test_a_changed_file_is_refused(folder: Path, name: str, exported: bool, damage: str) -> None:
    DAMAGE[damage](folder / name)
    with pytest.raises(ValueError, match=r"pulled.*pull it again|pull it with program=true") as caught:
        load(folder, exported=exported)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "0" * 64 + "  ../outside",
        "0" * 64 + "  /etc/passwd",
        "0" * 64 + "  a/../../b",
        "nonsense",
        "0" * 64 + "  encoder.pt2",
    ],
)
def test_sums_name_files_of_the_folder_once(folder: Path, line: str) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="line 4 is not a checksum of a file in this folder"):
        load(folder)


def test_what_is_not_listed_is_refused(folder: Path) -> None:
    check(folder)
    (folder / "encoder.py").write_text("")
    with pytest.raises(ValueError, match=r"encoder\.py: not listed in SHA256SUMS"):
        check(folder)


def test_other_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pulled encoder: it is no folder; python -m fbm_dist\.registry pull"):
        load(tmp_path / "nowhere")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="it holds no SHA256SUMS"):
        load(folder)
    (folder / "encoder.pt2").unlink()
    write_sums(folder)
    with pytest.raises(ValueError, match=r"pulled with program=false.*load\(folder, exported=False\)"):
        load(folder)
    assert load(folder, exported=False)(torch.zeros(1, 3, 16, 64, 64))["motion"].shape == (1, 128)
