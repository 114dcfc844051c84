"""The pages' commands, executed as they stand: only sizes are smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.docs.stories import STORIES, Story, checkout, run, script

# What a page says that its commands leave.
LEFT = {
    "README.md": ("runs/first/finished.json", "runs/mine/page.html"),
    "docs/getting-started.md": (
        *("shards/inspect.html", "runs/first/finished.json", "runs/first/pictures", "runs/mine/page.html"),
        *("runs/mine-probes/table.md", "encoder/encoder.safetensors"),
    ),
    "docs/data.md": ("shards/dataset.json", "shards/inspect.html"),
    "docs/large-collections.md": ("shards/dataset.json",),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in STORIES if (ROOT / page).exists()])
def test_a_page_can_be_followed_to_its_end(page: str, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    code, told = run(script(page, STORIES[page]), folder)
    assert code == 0, told[-6000:]
    missing = [name for name in LEFT[page] if not (folder / name).exists()]
    assert not missing, f"{missing} of {told[-3000:]}"


def test_every_story_is_a_page_and_its_smaller_words_are_used() -> None:
    """What a test makes smaller belongs to a command that stands in the page."""
    for page, story in STORIES.items():
        text = "".join(block.text for block in blocks(ROOT / page) if block.is_shell and not block.marked)
        assert all(door in text for door in story.smaller), f"{page}: {[d for d in story.smaller if d not in text]}"


def test_a_command_that_fails_ends_a_story(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    code, told = run(script("docs/data.md", Story(before=("false", "echo never"))), folder)
    assert code != 0
    assert "never" not in told
