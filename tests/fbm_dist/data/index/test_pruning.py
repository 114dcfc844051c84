"""Judged again at read time: what the rules of data_tools say of every clip, whatever the rules; logged by reason; in the digest."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from data_tools.config import ConfigError, load
from data_tools.dataset import commit_snapshot
from data_tools.prune import Pruning, clip_verdict
from data_tools.sample import MaskStatistics, Metadata, Sample
from data_tools.shards import write_shard
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.pruning import VERDICT, write_verdicts
from fbm_dist.data.index.selection import digest, select
from fbm_dist.schema import ClipSpec, Data, Filter

CLIP = ClipSpec(frames=1, size=16, mask=False)
RULES = (
    Pruning(),
    Pruning.paper(),
    Pruning(min_consistency=0.3, min_kept=0.75),
    Pruning(min_foreground=0.1, max_foreground=0.1, max_border=0.1, min_kept=0.0),
    Pruning(min_foreground=0.0, max_foreground=1.0, max_border=1.0, min_flatness=0.0),
)


def drawn(random: np.random.Generator) -> MaskStatistics:
    """Shares of which many are exactly what some rule asks for, or next to it."""
    exact = np.array([0.0, 0.02, 0.005, 0.1, 0.3, 0.8, 1.0])
    near = np.clip(np.concatenate([exact - 1e-6, exact, exact + 1e-6, random.random(6).round(6)]), 0, 1).round(6)
    frames = int(random.integers(1, 6))
    few = random.choice(near, 3)
    return MaskStatistics(
        foreground=tuple(random.choice(few, frames).tolist()),
        border=tuple(random.choice(random.choice(near, 2), frames).tolist()),
        uncertain=(0.0,) * frames,
        flatness=float(random.choice(near)),
        consistency=float(random.choice(near)),
    )


def write_judged(root: Path, statistics: list[MaskStatistics | None], rules: Pruning = RULES[0]) -> Path:
    """A data set of clips with these statistics, three shards, verdicts by `rules` stored. Nothing of it can be decoded."""
    samples = []
    for number, told in enumerate(statistics):
        frames = 2 if told is None else len(told.foreground)
        metadata = Metadata(
            film=f"film-{number}", source="x", shot=0, span=(0, frames), fps=(25, 1), size=(32, 32), num_frames=frames,
            codec="vp9", group=f"group-{number % 5}", statistics=told, verdict=clip_verdict(told, rules) if told else (),
        )  # fmt: skip
        samples.append(Sample(f"clip-{number:05d}", metadata, b"no film"))
    names = []
    for part in range(3):
        names.append(f"part-{part}")
        write_shard(root, names[-1], samples[part * len(samples) // 3 : (part + 1) * len(samples) // 3])
    commit_snapshot(root, {"made_by": "test"}, names)
    return root


@pytest.fixture(scope="module")
def told() -> list[MaskStatistics | None]:
    random = np.random.default_rng(0)
    return [None if number % 10 == 9 else drawn(random) for number in range(1200)]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, told: list[MaskStatistics | None]) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged") / "data", told)


def rows(root: Path, **chosen: object) -> list[int]:
    data = Data(path=root, clip=CLIP, filter=Filter.model_validate(chosen))
    return select(Index.open(root), data.filter, data.clip).kept.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("rules", RULES)
def test_a_clip_is_judged_as_the_rules_judge_it(
    judged: Path, told: list[MaskStatistics | None], rules: Pruning, tmp_path: Path
) -> None:
    names = write_verdicts(Index.open(judged), rules, tmp_path)["names"]
    found = np.load(tmp_path / VERDICT)
    first = [next(iter(clip_verdict(statistics, rules)), None) if statistics else None for statistics in told]
    assert [names[number] if number >= 0 else None for number in found.tolist()] == first
    assert set(names) == set(first) - {None}


def test_the_rules_that_were_stored_give_the_verdicts_that_were_stored(judged: Path) -> None:
    assert rows(judged, rules=Pruning()) == rows(judged, pruned=True)
    assert len(rows(judged, rules=Pruning.paper())) < len(rows(judged, pruned=True)) < len(rows(judged))


def test_the_keep_rate_is_logged_by_reason_from_the_cache_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = MaskStatistics(foreground=(0.2, 0.2), border=(0.0, 0.0), uncertain=(0, 0), flatness=0.3, consistency=0.9)
    small = good.model_copy(update={"foreground": (0.05, 0.001)})
    border = good.model_copy(update={"border": (0.2, 0.2)})
    flat = small.model_copy(update={"flatness": 0.01})  # counted once, for the first of its reasons
    root = write_judged(tmp_path / "data", [good, small, border, border, flat, None], Pruning.paper())
    settings: tuple[dict[str, object], ...] = (
        {"pruned": True},
        {"rules": Pruning()},
        {"rules": Pruning(), "groups": ("group-0", "group-3")},
        {},
    )
    lines = []
    with caplog.at_level(logging.INFO, "fbm_dist.data"):
        for chosen in settings:
            for _ in range(2):
                caplog.clear()
                rows(root, **chosen)
                lines.append(caplog.records[-1].getMessage())
    assert lines[::2] == lines[1::2]
    assert lines[::2] == [
        f"{root}: 2 of 6 clips taken: 2 border, 2 small",
        f"{root}: 3 of 6 clips taken: 2 border, 1 flat",
        f"{root}: 2 of 6 clips taken: 3 of other groups, 1 border",
        f"{root}: 6 of 6 clips taken",
    ]


def test_rules_are_a_name_or_a_section_and_their_numbers_are_what_counts(judged: Path) -> None:
    given = {
        "filter.rules=paper": Pruning.paper(),
        "filter.rules=mild": Pruning(),
        "filter.rules.min_foreground=0.05": Pruning(min_foreground=0.05),
        "filter.rules=null": None,
    }
    index = Index.open(judged)
    for override, rules in given.items():
        data = load(Data, None, [f"path={judged}", override])
        assert data.filter.rules == rules
        assert digest(index, data.filter, data.clip) == digest(index, Filter(rules=rules), data.clip)
    assert len({digest(index, Filter(rules=rules), CLIP) for rules in given.values()}) == 4
    with pytest.raises(ConfigError, match=r"filter\.rules: give mild, paper, or a section .*\(got \"papr\"\)$"):
        load(Data, None, ["path=x", "filter.rules=papr"])
    with pytest.raises(ConfigError, match=r"unknown key 'filter\.rules\.min_foregruond'"):
        load(Data, None, ["path=x", "filter.rules.min_foregruond=0.05"])


def test_rules_without_anything_to_judge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no clip has statistics .*leave data\.filter\.rules out"):
        rows(write_judged(tmp_path / "data", [None] * 3), rules=Pruning())


def test_stored_verdicts_and_rules_are_not_mixed(judged: Path) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        rows(judged, pruned=True, rules=Pruning())


def test_a_data_set_that_the_rules_empty_says_which_did(tmp_path: Path) -> None:
    empty = MaskStatistics(foreground=(0.0,), border=(0.0,), uncertain=(0.0,), flatness=0.5)
    with pytest.raises(ValueError, match=r"no clip is left of 3: rules \(not small\) keeps 0"):
        rows(write_judged(tmp_path / "data", [empty] * 3), rules=Pruning())
