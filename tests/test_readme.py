"""The README's tree is the tree. Its commands and links, and those of all other pages: tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text.split("## Where things are", 1)[1].split("```")[1]
    folder = ""
    for line in tree.splitlines():
        match = re.match(r"( *)([\w./]+)", line)
        if match:
            indent, name = match.groups()
            folder = "" if not indent else folder
            assert (ROOT / folder / name).exists(), f"the README's tree names {folder}{name}"
            folder = name if not indent else folder
