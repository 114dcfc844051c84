"""The commands of the documentation: fenced blocks and inline code of every page, and the line above a block that says what it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHELL = ("bash", "console", "sh", "shell")
# *Needs: a Slurm cluster.*    *Needs: two machines. Run by tests/clusters/test_hostfile.py.*    *Run by tests/launch/test_sweep.py.*
MARK = re.compile(r"^\*(?=.)(?:Needs: (?P<needs>[^*]+?)\.)?\s?(?:Run by (?P<test>[\w./-]+)\.)?\*$")
FENCE = re.compile(r"^```(?P<info>.*)$")


def pages() -> list[Path]:
    """Every page that a reader is sent to: the README, docs/, CONTRIBUTING, SECURITY, and the rooms' and infra's READMEs."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    found += sorted((ROOT / "docs").rglob("*.md"))
    found += sorted(p for top in ("data_tools", "fbm_dist", "infra") for p in (ROOT / top).rglob("README.md"))
    return [page for page in found if page.exists()]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        info: the words behind the fence: the language, then attributes.
        line: number of its first line in the page.
        needs: what its marker says that it needs; None: nothing.
        test: the file that its marker says runs it.
    """

    page: str
    info: str
    text: str
    line: int
    needs: str | None = None
    test: str | None = None

    @property
    def language(self) -> str:
        """The first word behind the fence."""
        return self.info.split()[0] if self.info.split() else ""

    @property
    def is_shell(self) -> bool:
        """Whether a reader types it."""
        return self.language in SHELL

    @property
    def marked(self) -> bool:
        """Whether a marker stands above it."""
        return self.needs is not None or self.test is not None

    def lines(self) -> list[str]:
        """Logical lines, without the prompt of a console block; of such a block the lines with a prompt alone."""
        joined = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        if self.language == "console":
            joined = [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
        return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    above, inside, info, start = "", [], "", 0
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence and not fenced:
            fenced, info, inside, start = True, fence["info"], [], number + 1
        elif fence:
            mark = MARK.match(above)
            needs, test = (mark["needs"], mark["test"]) if mark else (None, None)
            found.append(Block(name_of(page), info, "\n".join(inside) + "\n", start, needs, test))
            fenced, above = False, ""
        elif fenced:
            inside.append(line)
        elif line.strip():
            above = line.strip()
    assert not fenced, f"{page}: a fence is not closed"
    return found


def made_by(page: str) -> set[str]:
    """The files that a worked example writes: titles of its blocks."""
    return {title[1] for block in blocks(ROOT / page) if (title := re.search(r'title="([^"]+)"', block.info))}


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def inline(page: Path) -> Iterator[str]:
    """Inline code of a page, outside of its fences."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        yield code.replace("\\|", "|")
