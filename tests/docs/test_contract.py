"""docs/data.md lists the members of a sample and the files of a shard as the code has them."""

from __future__ import annotations

import re

from data_tools.sample import ORDER, Metadata
from data_tools.shards import KINDS
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## What comes out: the contract", 1)[1].split("\n## ", 1)[0]


def test_members_of_a_sample_in_their_order() -> None:
    rows = re.findall(r"^\| `KEY\.([\w.]+)` \|", SECTION, re.MULTILINE)
    assert rows == [extension for extension in ORDER if extension != "png"], "a png stands in the row of the mp4"
    assert "`KEY.png`" in SECTION


def test_files_of_a_shard() -> None:
    assert set(re.findall(r"^\| `shards/NAME\.([\w.]+)` \|", SECTION, re.MULTILINE)) == set(KINDS)


def test_fields_that_the_page_names_are_those_of_the_json() -> None:
    row = next(line for line in SECTION.splitlines() if line.startswith("| `KEY.json`"))
    named = {
        "film",
        "source",
        "id",
        "shot",
        "span",
        "fps",
        "size",
        "group",
        "split",
        "labels",
        "licence",
        "attribution",
        "versions",
    }
    assert named <= set(Metadata.model_fields)
    assert all(name in row for name in named)
