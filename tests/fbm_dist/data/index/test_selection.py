"""Which clips take part: what a plain computation over the manifest says, whatever the size of a chunk; groups held out by hash."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dataset import read_manifest
from data_tools.prune import Pruning, clip_verdict
from data_tools.sample import Metadata
from fbm_dist.data.index import arrays
from fbm_dist.data.index.index import CODECS, Index, name_id
from fbm_dist.data.index.selection import Selected, digest, select
from fbm_dist.schema import ClipSpec, Degrade, Filter
from tests.fbm_dist.data.index.varied import key_of, write_varied
from tests.grouped import write_clips

CLIP = ClipSpec(frames=1, size=16, mask=False)
GROUPS = [f"film-{number // 3}" for number in range(120)]  # 40 groups of three clips


def rows(root: Path, **chosen: object) -> list[int]:
    return select(Index.open(root), Filter.model_validate(chosen), CLIP).kept.tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("films") / "data", GROUPS)


def test_the_two_parts_are_disjoint_and_complete_and_cut_no_group(films: Path) -> None:
    kept, held = rows(films, hold_out=0.3), rows(films, hold_out=0.3, held_out=True)
    assert sorted(kept + held) == list(range(120))
    assert not {GROUPS[row] for row in kept} & {GROUPS[row] for row in held}
    assert 0.15 < len(held) / 120 < 0.45
    wanted = {name for name in GROUPS if name_id(name) < 0.3 * 2**63}
    assert {GROUPS[row] for row in held} == wanted


def test_a_larger_share_holds_out_the_same_groups_and_more(films: Path) -> None:
    few, many = (set(rows(films, hold_out=share, held_out=True)) for share in (0.2, 0.5))
    assert few < many


def test_a_group_stays_on_its_side_when_films_are_added(tmp_path: Path) -> None:
    root = write_clips(tmp_path / "data", GROUPS[:60])
    before = {GROUPS[row] for row in rows(root, hold_out=0.3, held_out=True)}
    write_clips(root, GROUPS[60:], first=60)
    after = {GROUPS[row] for row in rows(root, hold_out=0.3, held_out=True)}
    assert len(rows(root)) == 120
    assert {name for name in after if name in GROUPS[:60]} == before
    assert after > before


def test_other_filters_hold_on_both_sides(films: Path) -> None:
    some = tuple(sorted(set(GROUPS))[:20])
    kept, held = rows(films, groups=some, hold_out=0.3), rows(films, groups=some, hold_out=0.3, held_out=True)
    assert {GROUPS[row] for row in kept + held} == set(some)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_share_that_leaves_one_side_empty_is_refused_with_one_that_does_not(tmp_path: Path, held_out: bool) -> None:
    names = sorted(("a", "b", "c"), key=name_id)
    root = write_clips(tmp_path / "data", names)
    low, high = name_id(names[0]) / 2**63, name_id(names[-1]) / 2**63
    for share, told in ((low / 2, "none"), ((1 + high) / 2, "all")):
        with pytest.raises(ValueError, match=rf"holds out {told} of the groups.*a share from \S+ to \S+") as error:
            select(Index.open(root), Filter(hold_out=share, held_out=held_out), CLIP)
        words = str(error.value).split()
        least, most = (float(words[words.index(word) + 1]) for word in ("from", "to"))
        for proposed in (least, most):
            assert 0 < len(rows(root, hold_out=proposed, held_out=held_out)) < 3
    with pytest.raises(ValueError, match="cannot be split by a share"):
        select(Index.open(root), Filter(groups=("a",), hold_out=0.5), CLIP)


def test_held_out_without_a_share_is_refused(films: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.filter\.hold_out leaves out, which is 0"):
        select(Index.open(films), Filter(held_out=True), CLIP)


def test_what_is_held_out_is_part_of_the_digest(films: Path) -> None:
    index = Index.open(films)
    told = [{}, {"hold_out": 0.3}, {"hold_out": 0.3, "held_out": True}, {"hold_out": 0.4}]
    assert len({digest(index, Filter.model_validate(chosen), CLIP) for chosen in told}) == 4


@dataclass(frozen=True)
class Varied:
    """A data set, what its manifest says, and what was written into it (statistics before they became float32)."""

    root: Path
    told: list[dict[str, Any]]
    metadata: list[Metadata]
    excluded: Path


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Varied:
    folder = tmp_path_factory.mktemp("varied")
    root, metadata = write_varied(folder / "data")
    (folder / "excluded.txt").write_text("".join(f"{key_of(number)}\n" for number in range(0, 80, 3)))
    return Varied(root, read_manifest(root).to_pylist(), metadata, folder / "excluded.txt")


GROUP_NAMES = st.sampled_from([f"group-{number}" for number in range(12)])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "split": st.sampled_from(["train", "val"]),
        "groups": st.sets(GROUP_NAMES, min_size=3).map(sorted).map(tuple),
        "exclude_groups": st.sets(GROUP_NAMES, max_size=4).map(sorted).map(tuple),
        "exclude_keys": st.just(True),
        "labelled": st.sampled_from(["motion", "thing"]),
        "hold_out": st.sampled_from([0.3, 0.6]),
        "held_out": st.booleans(),
        "judged": st.sampled_from(["pruned", Pruning.paper(), Pruning(min_kept=0.9)]),
    },
)
SPECS = st.one_of(
    st.builds(
        ClipSpec,
        frames=st.integers(1, 3),
        stride=st.integers(1, 2),
        mask=st.booleans(),
        use_truth_as_mask=st.booleans(),
    ),
    st.builds(ClipSpec, frames=st.just(2), within=st.integers(2, 6), mask=st.just(False)),
    st.builds(ClipSpec, frames=st.just(2), offsets=st.sampled_from([(0, 1), (0, 4)]), resize=st.just("box")),
    st.builds(ClipSpec, frames=st.just(1), frames_per_shot=st.integers(1, 9), mask=st.booleans()),
)


def expected(varied: Varied, chosen: Filter, spec: ClipSpec) -> list[tuple[int, int | None]]:
    """(row, frame) of every entry, a clip at a time."""
    excluded = set(varied.excluded.read_text().split()) if chosen.exclude_keys else set()
    found: list[tuple[int, int | None]] = []
    for row, (told, metadata) in enumerate(zip(varied.told, varied.metadata, strict=True)):
        members = {member["extension"] for member in told["members"]}
        judged = clip_verdict(metadata.statistics, chosen.rules) if chosen.rules and metadata.statistics else ()
        lacking = "truth.png" if spec.use_truth_as_mask else "mask.png"
        if (
            (chosen.split is not None and told["split"] != chosen.split)
            or (chosen.groups and told["group"] not in chosen.groups)
            or told["group"] in chosen.exclude_groups
            or told["key"] in excluded
            or (chosen.labelled is not None and chosen.labelled not in dict(told["labels"]))
            or (chosen.pruned and told["verdict"])
            or judged
            or (chosen.hold_out and (name_id(told["group"]) < chosen.hold_out * 2**63) != chosen.held_out)
            or told["num_frames"] < spec.span
            or ((spec.mask or spec.use_truth_as_mask) and lacking not in members)
        ):
            continue
        ranks = told["shot_rank"]
        taken = [frame for frame, rank in enumerate(ranks) if 0 <= rank < (spec.frames_per_shot or 0)]
        found += [(row, frame) for frame in taken] if spec.frames_per_shot else [(row, None)]
    return found


@settings(max_examples=150, deadline=None)
@given(FILTERS, SPECS, st.sampled_from([1, 3, 16, 1 << 17]))
def test_a_selection_in_chunks_is_a_plain_computation(
    varied: Varied, wanted: dict[str, Any], spec: ClipSpec, size: int
) -> None:
    judged = wanted.pop("judged", None)
    wanted |= {"pruned": True} if judged == "pruned" else {"rules": judged} if judged else {}
    wanted |= {"exclude_keys": varied.excluded} if "exclude_keys" in wanted else {}
    if "hold_out" not in wanted:
        wanted.pop("held_out", None)
    chosen = Filter(**wanted)
    index = Index.open(varied.root)
    entries = expected(varied, chosen, spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK", size)
        try:
            selected = pickle.loads(pickle.dumps(select(index, chosen, spec)))
        except ValueError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert not entries or "of the groups, which are chosen by a hash" in refused
            return
        try:
            assert selected.kept.tolist() == [row for row, _ in entries]
            frames = selected.frames
            assert (frames is None) == (spec.frames_per_shot is None)
            assert frames is None or frames.tolist() == [frame for _, frame in entries]
            check_facts(selected, [varied.told[row] for row, _ in entries])
            again = [row for chunk, taken in selected.chunks(index) for row in (taken + chunk.start).tolist()]
            assert again == selected.kept.tolist()
        finally:  # the next example may ask for the same with another size of chunk
            shutil.rmtree(selected.folder)
            for made in (*index.folder.glob("verdicts-*"), *index.folder.glob("ranked-*")):
                if made.is_dir():
                    shutil.rmtree(made)


def check_facts(selected: Selected, told: list[dict[str, Any]]) -> None:
    """What is said of the entries is what their manifest rows say."""
    assert len(selected) == len(told) > 0
    assert selected.codecs == tuple(codec for codec in CODECS if codec in {row["codec"] for row in told})
    assert selected.smallest == min(min(row["size"]) for row in told)
    lacking = [row for row in told if "truth.png" not in {member["extension"] for member in row["members"]}]
    assert selected.without_truth == len(lacking)
    names = [f"shard-{number}" for number in range(5)]
    assert len(selected.starts) == 6
    for number, name in enumerate(names):
        part = slice(*selected.starts[number : number + 2].tolist())
        assert [row["shard"] for row in told[part]] == [name] * sum(row["shard"] == name for row in told)


def test_a_selection_that_is_there_is_opened_without_a_look_at_the_rows(tmp_path: Path) -> None:
    root = write_clips(tmp_path / "data", ["a"] * 5 + ["b"] * 9)
    chosen = Filter(groups=("b",))
    first = select(Index.open(root), chosen, CLIP)
    index = Index.open(root)
    for name in ("rows.npy", "keys.npy", "labels.npy"):
        (index.folder / name).unlink()
    again = select(index, chosen, CLIP)
    assert again == first
    assert again.kept.tolist() == list(range(5, 14))


def test_what_is_pickled_is_small_and_has_no_lists(tmp_path: Path) -> None:
    selected = select(Index.open(write_clips(tmp_path / "data", ["a"] * 600)), Filter(), CLIP)
    small = len(pickle.dumps(selected))
    assert (len(selected.kept), len(selected.starts)) == (600, 2)  # opened by now
    assert len(pickle.dumps(selected)) == small < 1000


def test_every_clip_setting_is_part_of_the_digest(films: Path) -> None:
    index = Index.open(films)
    changes: dict[str, Any] = {
        "frames": 2, "stride": 2, "offsets": (0,), "within": 3, "negative": True, "size": 32, "resize": "crop", "window": "centre",
        "mask": True, "truth": True, "use_truth_as_mask": True, "reverse": 0.1, "mirror": 0.1, "frames_per_shot": 3,
        "crop_share": 0.5, "crop_at": "random", "box_share": 0.5, "box_scale": 0.5, "box_shift": 0.5,
        "degrade": Degrade(kind="boundary", kernel=3),
    }  # fmt: skip
    assert set(changes) == set(ClipSpec.model_fields)
    found = {digest(index, Filter(), CLIP.model_copy(update={name: value})) for name, value in changes.items()}
    assert len(found | {digest(index, Filter(), CLIP)}) == len(changes) + 1


def test_what_makes_masks_worse_is_part_of_the_digest_only_where_it_is_given(films: Path) -> None:
    index = Index.open(films)
    given: list[dict[str, Any]] = [
        {"kind": "box"},
        {"kind": "full"},
        *({"kind": "boundary", "kernel": kernel} for kernel in (3, 5)),
        *({"kind": "truncate", "share": share} for share in (0.2, 0.5)),
    ]
    clips = [digest(index, Filter(), ClipSpec(degrade=Degrade(**how))).split(".")[2] for how in given]
    assert len(set(clips)) == len(given)
    known = "31f5f26b727d3e03"  # of runs from before there was such a setting
    assert digest(index, Filter(), ClipSpec()).split(".")[2] == known
    assert known not in clips
