"""Holding out groups by the hash of their name: disjoint, complete, stable; and digests that older filters keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.data.index.index import Index, name_id
from fbm_dist.data.index.selection import digest, filter_text, select
from fbm_dist.schema import ClipSpec, Data, Filter
from tests.grouped import write_clips

GROUPS = [f"film-{number // 3}" for number in range(120)]  # 40 groups of three clips


def data_of(root: Path, **chosen: object) -> Data:
    return Data(path=root, clip=ClipSpec(frames=1, size=16, mask=False), filter=Filter.model_validate(chosen))


def rows(root: Path, **chosen: object) -> list[int]:
    return np.load(select(Index.open(root), data_of(root, **chosen))).tolist()  # type: ignore[no-any-return]


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
            select(Index.open(root), data_of(root, hold_out=share, held_out=held_out))
        words = str(error.value).split()
        least, most = (float(words[words.index(word) + 1]) for word in ("from", "to"))
        for proposed in (least, most):
            assert 0 < len(rows(root, hold_out=proposed, held_out=held_out)) < 3
    with pytest.raises(ValueError, match="cannot be split by a share"):
        select(Index.open(root), data_of(root, groups=("a",), hold_out=0.5))


def test_held_out_without_a_share_is_refused(films: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.filter\.hold_out leaves out, which is 0"):
        select(Index.open(films), data_of(films, held_out=True))


def test_filters_of_before_are_said_as_before() -> None:
    plain = '{"exclude_groups": [], "exclude_keys": [], "groups": [], "labelled": null, "pruned": false, "split": null}'
    assert filter_text(Filter()) == plain, "checkpoints and encoders of before hold the hash of this text"


def test_what_is_held_out_is_part_of_the_digest(films: Path) -> None:
    index = Index.open(films)
    told = [{}, {"hold_out": 0.3}, {"hold_out": 0.3, "held_out": True}, {"hold_out": 0.4}]
    assert len({digest(index, data_of(films, **chosen)) for chosen in told}) == 4
