"""boxes.csv is read whole, or one line says which of its lines is no box."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.places import Place, write_atomic
from data_tools.sources.boxes import Box, read_boxes

TEXT = "object,path,frame,x0,y0,x1,y1\nman,./a.mp4,3,10,0,20.5,8\ndog,a.mp4,1,-5,0,5,5\ndog,a.mp4,1,-5,0,5,5\n,,,,,,\nx,b/c.mp4,0,0,0,1,1\n"


def test_boxes(tmp_path: Path, memory: Place) -> None:
    expected = {"a.mp4": (Box(1, -5, 0, 5, 5), Box(3, 10, 0, 20.5, 8)), "b/c.mp4": (Box(0, 0, 0, 1, 1),)}
    (tmp_path / "boxes.csv").write_text(TEXT)
    assert read_boxes(tmp_path / "boxes.csv") == expected
    write_atomic(memory / "boxes.csv", TEXT.encode())
    assert read_boxes(memory / "boxes.csv") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,-1,0,0,1,1", "frame '-1' is no index of a frame"),
        ("a,1.5,0,0,1,1", "frame '1.5'"),
        ("a,1,0,zero,1,1", "'0, zero, 1, 1' are no numbers of pixels"),
        ("a,1,0,0,,1", "no numbers"),
        ("a,1,0,0,1", "no numbers"),
        ("a,1,5,0,5,1", "expected x0 < x1 and y0 < y1"),
        ("a,1,0,3,1,1", "expected x0 < x1"),
        ("a,1,0,0,nan,1", "are no box"),
        ("a,1,0,0,inf,1", "are no box"),
        (",1,0,0,1,1", "no path"),
    ],
)
def test_what_is_no_box(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(f"path,frame,x0,y0,x1,y1\na,0,0,0,1,1\n{row}\n")
    with pytest.raises(ValueError, match=rf"boxes\.csv, line 3: .*{message}"):
        read_boxes(tmp_path / "boxes.csv")


def test_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("path,frame,x0,y0,x,y1\n")
    with pytest.raises(ValueError, match=r"boxes\.csv: no column 'x1'; it has path, .*; the nearest is"):
        read_boxes(tmp_path / "boxes.csv")
