"""The exclusion list: exactly the keys that it names, whatever their widths, its order and its line ends."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.index import exclusion as module
from fbm_dist.data.index.exclusion import open_exclusion
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import select
from fbm_dist.schema import ClipSpec, Filter
from tests.grouped import write_clips
from tests.logs import ours

KEYS = st.text("0a-_", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(KEYS, max_size=12), st.lists(KEYS, min_size=1, max_size=12))
def test_it_holds_what_a_set_holds(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str], asked: list[str]
) -> None:
    path = tmp_path_factory.mktemp("list") / "keys.txt"
    path.write_text("".join(f"{key}\n" for key in listed))
    with pytest.MonkeyPatch.context() as patch:  # read and written in many parts
        patch.setattr(module, "BLOCK", 5)
        patch.setattr(module, "CHUNK", 2)
        exclusion = open_exclusion(path)
    assert exclusion.keys.tolist() == sorted(key.encode() for key in set(listed))
    assert exclusion.digest == sha256("".join(f"{key}\n" for key in sorted(set(listed))).encode()).hexdigest()
    assert exclusion.count == len(set(listed))
    for width in (6, 16):  # as wide as the data set's keys are stored
        keys = np.array([key.encode() for key in asked], f"S{width}")
        assert exclusion.holds(keys).tolist() == [key in listed for key in asked]


def test_order_repeats_blanks_and_line_ends_do_not_count(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.txt", tmp_path / "other.txt"
    plain.write_bytes(b"a\nb\nc-1")
    other.write_bytes(b"\xef\xbb\xbf\r\n c-1 \r\nb\r\n\r\na\r\nb\r\n")
    assert open_exclusion(plain).digest == open_exclusion(other).digest
    assert open_exclusion(other).strange == 0
    other.write_bytes(b"a\nb\n")
    assert open_exclusion(plain).digest != open_exclusion(other).digest


def test_lines_that_are_no_keys_are_told_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = Index.open(write_clips(tmp_path / "data", ["a", "b"]))
    path = tmp_path / "list.txt"
    path.write_text("clip-0001.mp4\nclip-0001\nÄ\n")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fbm_dist.data"):
            selected = select(index, Filter(exclude_keys=path), ClipSpec(frames=1, mask=False))
        assert selected.kept.tolist() == [0]
        assert [record.getMessage() for record in ours(caplog)] == [
            f"data.filter.exclude_keys={path}: 2 lines are no keys of clips (e.g. 'clip-0001.mp4') and exclude nothing"
        ]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"exclude_keys=.*none.txt: cannot be read: No such file"):
        open_exclusion(tmp_path / "none.txt")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"exclude_keys=.*picture.txt: cannot be read"):
        open_exclusion(tmp_path / "picture.txt")
