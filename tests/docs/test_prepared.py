"""What a page prepares, or the header of a config, suits what is trained on it: large enough, long enough, with masks where needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from data_tools.schema import Prepare
from fbm_dist.config import load
from fbm_dist.schema import Run
from tests.docs.blocks import ROOT, all_blocks
from tests.docs.commands import KEY, split

DATA = re.compile(r"python -m (data_tools prepare(?: configs/\S+| [a-z_.]+=\S*[\w/])+)")
ROUNDED = 1.05  # a network's own size is no round number: 131 pixels of 128 are as good as their own


def lacks(prepare: Prepare, run: Run) -> list[str]:
    """What the clips that `prepare` makes lack for a run."""
    clip, found = run.data.clip, []
    if prepare.short_side * ROUNDED < clip.size:
        found.append(f"short_side={prepare.short_side} for frames of {clip.size} pixels")
    if prepare.max_frames < clip.span:
        found.append(f"max_frames={prepare.max_frames} for clips of {clip.span} frames")
    if clip.mask and not clip.use_truth_as_mask and prepare.masks.kind == "none":
        found.append("masks.kind=none for clips with masks")
    return found


def prepared(words: Sequence[str]) -> Prepare:
    config = next((ROOT / word for word in words if word.endswith(".yaml")), None)
    return load(Prepare, config, [word for word in words if KEY.match(word)])


def pairs() -> Iterator[tuple[str, Prepare, Run]]:
    """Every run of a page on data that the page has prepared, and of every config that says how its data are prepared."""
    made: dict[tuple[str, str], Prepare] = {}
    for block in all_blocks():
        for words in (words for line in block.lines() if block.is_shell for words in split(line)):
            if words[:4] == ["python", "-m", "data_tools", "prepare"]:
                prepare = prepared(words[4:])
                made[block.page, prepare.output] = prepare
            elif "launch/pretrain.py" in words:
                config, *given = words[words.index("launch/pretrain.py") + 1 :]
                path = next((word.removeprefix("data.path=") for word in given if word.startswith("data.path=")), "")
                if (block.page, path) in made:
                    run = load(Run, ROOT / config, given)
                    yield f"{block.page}: {config}", made[block.page, path], run
    for path in sorted((ROOT / "configs" / "pretrain").glob("*.yaml")):
        for command in DATA.findall(header(path)):
            yield path.name, prepared(command.split()[2:]), load(Run, path, ["data.path=x", "run.folder=y"])


def header(path: Path) -> str:
    """The comment that a config opens with, in one line."""
    lines = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))
    assert lines, path
    return " ".join(line.lstrip("# ") for line in lines[0].splitlines())


PAIRS = list(pairs())


def test_there_are_pairs() -> None:
    named = {name for name, _, _ in PAIRS}
    assert {"motion_mask.yaml", "drnet_kth.yaml", "coherency.yaml"} <= named
    assert len([name for name in named if name.startswith("docs/reproducing-the-papers.md")]) >= 6


@pytest.mark.parametrize(("name", "prepare", "run"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_clips_are_large_and_long_enough_and_have_masks(name: str, prepare: Prepare, run: Run) -> None:
    assert not lacks(prepare, run)


def test_what_does_not_suit_is_seen() -> None:
    run = load(Run, ROOT / "configs/pretrain/motion_mask.yaml", ["data.path=x", "run.folder=y"])
    small = load(Prepare, None, ["input=x", "output=y", "masks.kind=none"])
    assert len(lacks(small, run)) == 2
    longer = load(Run, ROOT / "configs/pretrain/coherency.yaml", ["data.path=x", "run.folder=y"])
    assert lacks(small.model_copy(update={"short_side": 240, "max_frames": 20}), longer) == [
        "max_frames=20 for clips of 21 frames"
    ]
