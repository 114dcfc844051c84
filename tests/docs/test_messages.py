"""The messages that docs/troubleshooting.md quotes are those of the sources."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
OTHERS = ("Makefile", "infra/slurm/session.sh", "infra/docker/entry.sh")
HOLE = "\0"  # where a message has a value


@cache
def spoken() -> tuple[str, ...]:
    """Every text of the sources, with holes where it has values; other files as they are."""
    found: list[str] = []
    for top in ("data_tools", "fbm_dist", "launch"):
        for path in sorted((ROOT / top).rglob("*.py")):
            found += [text for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if (text := _text(node))]
    found += [(ROOT / name).read_text(encoding="utf-8") for name in OTHERS if (ROOT / name).exists()]
    return tuple(found)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):  # what a signal handler writes
        return node.value.decode("utf-8", errors="replace")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) or HOLE for value in node.values)
    return ""


def quoted() -> list[str]:
    """The first cells of the page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def is_spoken(message: str) -> bool:
    """Whether one text of the sources has all parts of a quotation, in order, with a value wherever it has dots inside."""
    parts = [re.escape(part.strip()) for part in message.split("...")]
    pattern = re.compile(rf"[^\n]*?{HOLE}[^\n]*?".join(part for part in parts if part).replace(r"\ ", r"\s+"))
    return any(pattern.search(text) for text in spoken())


def test_there_are_messages() -> None:
    assert len(quoted()) > 40


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_sources(message: str) -> None:
    assert len(message.replace("...", "").strip()) > 10, "too little to find it by"
    assert is_spoken(message), message


def test_what_nobody_says_is_seen() -> None:
    assert is_spoken("training.global_batch=... is not a multiple of training.micro_batch=...")
    assert not is_spoken("training.global_batch=... is no multiple of training.micro_batch=...")
    assert not is_spoken("is not a multiple of training.micro_batch=... x ... nodes")
