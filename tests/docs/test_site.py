"""The documentation builds as a site without a warning, and what GitHub shows as a list, a table or a link is one there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.blocks import ROOT, pages

pytest.importorskip("mkdocs", reason="mkdocs is missing: pip install 'fbm-dist[docs]'")
NO_CODE = re.compile(r"<pre.*?</pre>|<code.*?</code>|<script.*?</script>", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    found = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "building" / "site.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_page_of_docs_is_a_page_and_so_is_what_it_links_to(site: Path) -> None:
    """Strict: MkDocs has looked at every link and anchor."""
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists(), page
    assert (site / "repository" / "fbm_dist" / "objectives" / "fbm" / "index.html").exists()
    assert "objective" in (site / "repository" / "configs" / "pretrain" / "watched.yaml.html").read_text()


def test_no_table_or_link_is_left_as_text(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = NO_CODE.sub("", page.read_text(encoding="utf-8"))
        assert not re.findall(r"^\s*\|.*\|\s*$|\]\([^)\s]+\)|^<p>- .*", text, re.MULTILINE), page


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', text)


def test_a_link_that_leads_nowhere_ends_the_build(hook: ModuleType) -> None:
    assert list(hook.targets("docs/a.md", "[r](../README.md#x) [d](data.md) `[c](../no.md)`"[:37])) == ["README.md"]
    with pytest.raises(ValueError, match="leads nowhere"):
        list(hook.targets("docs/a.md", "[r](../NONE.md)"))
    assert not list(hook.targets("docs/a.md", "```\n[r](../NONE.md)\n```"))


def test_lists_and_tables_as_github_reads_them(hook: ModuleType) -> None:
    given = ["Text:", "- one", "  more", "", "  | a |", "  |---|", "- two", "", "After."]
    wanted = ["Text:", "", "- one", "    more", "", "    | a |", "    |---|", "- two", "", "After."]
    assert list(hook.indented(given)) == wanted
    assert list(hook.indented(["Text", "| a |", "|---|"])) == ["Text", "", "| a |", "|---|"]
    assert list(hook.indented(["Text", "```", "- no list", "```"])) == ["Text", "```", "- no list", "```"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_to_a_heading(page: Path, hook: ModuleType) -> None:
    """On GitHub, from the page's own folder."""
    path = page.relative_to(ROOT).as_posix()
    for line, code in hook.told_apart(page.read_text(encoding="utf-8").splitlines()):
        for match in () if code else hook.LINK.finditer(re.sub(r"`[^`]*`", "``", line)):
            target = hook.resolved(path, match[2])
            assert target is None or (ROOT / target).exists() or hook.content_of(target), match[0]
            own = ROOT / target if target else page
            if match[3] and own.suffix == ".md" and "://" not in match[2]:
                assert match[3][1:] in anchors(own), match[0]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings on GitHub."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found
