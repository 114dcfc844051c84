"""What a config's header offers, `NAME: a.b=c d.e=f`, is accepted as it stands: known keys, values that go together, clips that suit."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from data_tools.config import ConfigError
from fbm_dist.config import load
from fbm_dist.schema import Run
from tests.docs.commands import check_suits
from tests.docs.test_prepared import ROOT, header
from tests.test_configs import CONFIGS, GIVEN, command_line

KEY = r"(?:[a-z_][a-z_0-9]*\.)*[a-z_][a-z_0-9]*="
WORD = rf"(?:'{KEY}[^']*'|{KEY}[^\s']*[^\s'.,;:)])"
OFFER = re.compile(rf"(?<=: ){WORD}(?: {WORD})*")


def offers(path: Path) -> list[str]:
    """The keys behind each name, as one would type them after the file's command."""
    return OFFER.findall(header(path))


def check(path: Path, words: list[str]) -> None:
    """
    Raises:
        ConfigError: the file with these words is no config; ValueError: it is one that cannot be trained.
    """
    schema, given = GIVEN[path.parent.name]
    check_suits(load(schema, path, [*(given or command_line(path)), *words]))


@pytest.mark.parametrize(
    ("path", "offer"),
    [
        pytest.param(path, offer, id=f"{path.parent.name}-{path.stem}-{offer}")
        for path in CONFIGS
        for offer in ("", *offers(path))
    ],
)
def test_a_config_is_accepted_as_it_is_and_with_what_its_header_offers(path: Path, offer: str) -> None:
    check(path, shlex.split(offer))


def test_the_variants_of_the_papers_have_a_line() -> None:
    """Those that no config of their own has."""
    found = {path.stem: " ".join(offers(path)) for path in CONFIGS if path.parent.name == "pretrain"}
    for name in ("coherency", "coherency_siamese"):
        assert "objective.network=alexnet" in found[name]
        assert "objective.loss.kind=sfa" in found[name]
        assert "objective.negatives=any" in found[name]
    assert "objective.loss.kind=triplet" in found["coherency"]
    assert "objective.content=resnet objective.pose=resnet objective.pose_dim=10" in found["drnet_mnist"]
    for key in ("frame_critic.weight", "random_frame", "kernel_decoder"):
        assert f"objective.{key}=" in found["fbm"]


def test_prediction_on_kth_stands_on_the_drnet_of_kth() -> None:
    """Its line repeats the settings of the run that it begins with."""
    folder = ROOT / "configs" / "pretrain"
    offer = next(offer for offer in offers(folder / "drnet_prediction.yaml") if "n_past=10" in offer)
    run = load(Run, folder / "drnet_prediction.yaml", ["data.path=x", "run.folder=y", *shlex.split(offer)])
    trunk = load(Run, folder / "drnet_kth.yaml", ["data.path=x", "run.folder=y"]).objective
    assert run.objective.model_dump()["trunk"] == trunk.model_dump()


def test_what_is_offered_wrongly_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "pretrain" / "coherency.yaml"
    path.parent.mkdir()
    text = (ROOT / "configs" / "pretrain" / "coherency.yaml").read_text(encoding="utf-8")
    told = "# Paper: x.\n# Two: objective.netwrok=alexnet\n#   data.clip.frames=2, and more.\n# Three (a: b): 'players={}'\n"
    path.write_text(told + text.partition("\nobjective:")[1] + text.partition("\nobjective:")[2])
    assert offers(path) == ["objective.netwrok=alexnet data.clip.frames=2", "'players={}'"]
    with pytest.raises(ConfigError, match="netwrok"):
        check(path, ["objective.netwrok=alexnet"])
    with pytest.raises(ValueError, match=r"data\.clip\.frames is 2"):
        check(path, ["data.clip.frames=2", "data.clip.offsets=[0, 20]"])
