"""Where the families meet: by the one door each trains on the same prepared shards, or says in one line what these lack."""

from __future__ import annotations

import json
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest

from fbm_dist.config import load
from fbm_dist.objectives.family import Family
from fbm_dist.schema import AnyObjective, ClipSpec, Run
from tests.datasets import write_dataset

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "loading.md"
ENOUGH, FEW = 24, 8  # stored frames of a clip
STEP = "training.steps=1 training.global_batch=4 training.micro_batch=4 training.epochs=null training.engine=torch training.device=cpu"
STEP += (
    " training.preflight=off training.picture_every=0 validation=null tracking.mlflow=false tracking.register_as=null"
)
STEP += " data.workers=1 data.threads=1 data.decode=pyav"
WIDTH = 0.05
CLASSIFIER = "{family: classifier, label: motion, classes: 2, trunk: {family: fbm, size: SIZE, width: WIDTH}}"

Door = Callable[..., tuple[int, str]]


def members(union: Any) -> Iterator[Any]:
    """The classes of a union of unions, annotated or not."""
    if isinstance(union, type):
        yield union
    else:
        yield from chain.from_iterable(members(part) for part in get_args(union))


KINDS = {get_args(kind.model_fields["family"].annotation)[0]: kind for kind in members(AnyObjective)}


@cache
def configs() -> dict[Path, Run]:
    """What configs/pretrain has."""
    return {path: loaded([str(path)]) for path in sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))}


@cache
def words_of(family: str, *, published: bool) -> tuple[str, ...]:
    """A config that trains the family, and what else makes it that: as published, or small enough for a step."""
    if family == "classifier":  # evaluations make its runs: on the encoder of another family
        config, *_ = words_of("fbm", published=published)
        size, width = (128, 1) if published else (64, WIDTH)
        objective = CLASSIFIER.replace("SIZE", str(size)).replace("WIDTH", str(width))
        return config, f"objective={objective}", "data.clip.mask=false"
    own = [path for path, run in configs().items() if run.objective.family == family]
    assert own, f"configs/pretrain has no config that trains {family}"
    path = min(own, key=lambda path: (path.stem.endswith("_cpu") == published, path.stem != family))
    keys = parts(configs()[path].objective).items()
    narrow = [f"{key}.width={WIDTH}" for key, part in keys if "width" in type(part).model_fields]
    return str(path), *([] if published else narrow)


def parts(objective: Any) -> dict[str, Any]:
    """The objective's config by its key, and that of its trunk, where it stands on one."""
    trunk = getattr(objective, "trunk", None)
    return {"objective": objective} | ({"objective.trunk": trunk} if trunk else {})


def loaded(words: Sequence[str]) -> Run:
    config, *given = words
    return load(Run, config, ["data.path=shards", "run.folder=run", *given])


def needs_masks(family: str) -> bool:
    """Whether the family refuses clips that are its own but for their masks."""
    run = loaded(words_of(family, published=False))
    clip = run.data.clip.model_copy(update={"mask": False, "truth": False, "resize": "squash"})
    try:
        run.objective.check_clip(clip)
    except ValueError:
        return True
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data sets that differ in one thing each, and where the index of each is cached."""
    folder = tmp_path_factory.mktemp("families")
    write_dataset(folder / "whole", clips=8, frames=ENOUGH)
    write_dataset(folder / "without-masks", clips=8, frames=ENOUGH, masks=False, truth=False)
    write_dataset(folder / "short", clips=8, frames=FEW)
    write_dataset(folder / "one-film", clips=4, frames=ENOUGH, clips_per_film=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FBM_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def door(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """door(FAMILY, DATA, words): one step by `launch/pretrain.py`, in this process; its exit code, and what it says on stderr."""

    def enter(words: Sequence[str]) -> tuple[int, str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["launch/pretrain.py", *words])
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(logging.getLogger("fbm_dist"), "handlers", [])
            patch.setattr("fbm_dist.door._leave", lambda: None)  # other tests of this process have peers
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / "launch" / "pretrain.py"), run_name="__main__")
        return int(ended.value.code or 0), capsys.readouterr().err

    def train(family: str, data: str, *words: str) -> tuple[int, str]:
        run = [*words_of(family, published=False), *STEP.split(), "data.filter.split=null"]
        trunk = getattr(loaded(run).objective, "trunk", None)
        if trunk and family != "classifier":  # it stands on weights that another run has trained
            begun = folder / f"trunk-{family}"
            if not (begun / "finished.json").exists():
                own = [words_of(trunk.family, published=False)[0], *STEP.split(), "data.filter.split=null"]
                own += [f"objective={trunk.model_dump_json()}", f"data.path={folder / 'whole'}", f"run.folder={begun}"]
                assert enter(own)[0] == 0
            run.append(f"init_from={begun}")
        return enter([*run, f"data.path={folder / data}", f"run.folder={tmp_path / 'run'}", *words])

    return train


def check_trained(result: tuple[int, str], run: Path) -> None:
    code, told = result
    assert code == 0, told
    assert json.loads((run / "finished.json").read_text())["summary"]["clips"] == 4
    assert (run / "encoder" / "encoder.safetensors").exists()


def one_line(result: tuple[int, str]) -> str:
    """What a run that cannot be done says: the last line, and no other error."""
    code, told = result
    assert code == 1, told
    assert "Traceback" not in told
    *before, last = told.splitlines()
    assert not [line for line in before if "error" in line.lower()]
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize("family", KINDS)
def test_each_takes_a_step_on_the_same_shards(family: str, door: Door, tmp_path: Path) -> None:
    check_trained(door(family, "whole"), tmp_path / "run")


@pytest.mark.parametrize("family", KINDS)
def test_without_masks_those_that_need_some_say_what_to_do_and_the_others_train(
    family: str, door: Door, tmp_path: Path
) -> None:
    if not needs_masks(family):
        check_trained(door(family, "without-masks"), tmp_path / "run")
        return
    asked = one_line(door(family, "without-masks"))
    assert (
        "no clip is left of 8: masks (data.clip.mask) keeps 0; prepare the films with masks (masks.kind=unlc)" in asked
    )
    unasked = one_line(door(family, "whole", "data.clip.mask=false", "data.clip.resize=squash"))
    assert f"the family '{family}' learns from masks, and data.clip.mask is false; set data.clip.mask=true" in unasked
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("family", KINDS)
def test_of_too_few_frames_it_says_how_many_it_needs_and_how_many_there_are(
    family: str, door: Door, tmp_path: Path
) -> None:
    needed = loaded(words_of(family, published=False)).data.clip.span
    if needed <= FEW:
        check_trained(door(family, "short"), tmp_path / "run")
        return
    told = one_line(door(family, "short"))
    assert f"no clip is left of 8: at least {needed} stored frames (data.clip." in told
    assert f"the longest has {FEW}: prepare longer clips (max_frames={needed} or more" in told


@pytest.mark.parametrize("family", [f for f in KINDS if loaded(words_of(f, published=False)).data.clip.negative])
def test_of_a_single_film_a_family_that_holds_films_apart_says_so(family: str, door: Door) -> None:
    told = one_line(door(family, "one-film"))
    assert "all clips are of one film, and data.clip.negative takes a frame of another; prepare more films" in told


# The table of docs/loading.md.
HEAD = "| family | as in | `data.clip` | stored frames of a clip | masks | a frame of another film | size |"


def test_the_page_says_what_each_takes() -> None:
    """UPDATE_GOLDEN=1 writes the table anew."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(row, KINDS)]
    table = re.search(rf"^{re.escape(HEAD)}\n(?:\|.*\n)*", text, re.MULTILINE)
    assert table, f"{PAGE} has no table of families"
    wanted = "\n".join(rows) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(text.replace(table[0], wanted), encoding="utf-8")
        return
    assert table[0] == wanted, "UPDATE_GOLDEN=1 make test writes it anew"


def row(family: str) -> str:
    """What a family takes, as its published config has it."""
    run = loaded(words_of(family, published=True))
    clip, plain = run.data.clip, ClipSpec()
    run.objective.check_clip(clip)
    spaced = {
        name: getattr(clip, name)
        for name in ("stride", "offsets", "within")
        if getattr(clip, name) != getattr(plain, name)
    }
    keys = {"frames": clip.frames, **spaced} | ({"negative": True} if clip.negative else {})
    told = " ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in keys.items())
    name = Path(words_of(family, published=True)[0]).name
    config = (
        f"[{name}](../configs/pretrain/{name})" if isinstance(run.objective, Family) else "[evaluation](evaluation.md)"
    )
    yes = {True: "yes", False: "no"}
    cells = (
        f"`{family}`",
        config,
        f"`{told}`",
        str(clip.span),
        yes[needs_masks(family)],
        yes[clip.negative],
        sizes(run),
    )
    return f"| {' | '.join(cells)} |"


def sizes(run: Run) -> str:
    """Which sides of a frame the objective's config allows, of those up to 256 pixels."""
    tree = run.objective.model_dump(mode="json")
    sided = [part for part in (tree, tree.get("trunk", {})) if "size" in part]
    allowed = []
    for size in range(16, 257):
        for part in sided:
            part["size"] = size
        try:
            type(run.objective).model_validate_json(json.dumps(tree))
        except ValueError:
            continue
        allowed.append(size)
    every = list(range(allowed[0], 257))
    return f"from {allowed[0]} on" if allowed == every else " or ".join(map(str, allowed))
