"""What the pages need to be a site of MkDocs: links to files outside of docs/ become pages, and GitHub's lists Python-Markdown's.

GitHub shows a link to ../README.md or ../configs/pretrain/fbm.yaml, MkDocs refuses it: here every file of the repository that a page
links to becomes a page of the site, below `repository/`, and so do those that these link to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs"
ELSEWHERE = "repository"  # where files from outside of docs/ stand in the site
FOLDER = "index.md"  # the page of a folder without a README
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^\s*(```+|~~~+)")
ITEM = re.compile(r"^( *)(?:[-*]|\d+\.) ")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".sh": "bash", ".sbatch": "bash", ".cff": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to, and what those link to."""
    waiting = [(f"{DOCS}/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    known = {f"{DOCS}/{file.src_uri}" for file in files}
    while waiting:
        path, text = waiting.pop()
        for target in targets(path, text):
            if target in known:
                continue
            known.add(target)
            content = content_of(target)
            if target.endswith(".md"):
                waiting.append((target, content))
            files.append(File.generated(config, uri(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to the pages of the site, and lists are indented by four."""
    path = repository_path(page.file.src_uri)
    return "\n".join(indented(relinked(markdown, path, page.file.src_uri))) + "\n"


def targets(path: str, text: str) -> Iterator[str]:
    """The files of the repository, outside of docs/, that a page links to.

    Raises:
        ValueError: a link that leads nowhere.
    """
    for line, code in told_apart(text.splitlines()):
        for match in () if code else LINK.finditer(line):
            target = resolved(path, match[2])
            if target is not None and not target.startswith(f"{DOCS}/"):
                if not content_of(target):
                    raise ValueError(f"{path}: the link {match[2]!r} leads nowhere")
                yield target


def resolved(path: str, link: str) -> str | None:
    """The file that a link of `path` names, from the repository's root; None: another site, or this page."""
    if not link or "://" in link or link.startswith("mailto:"):
        return None
    target = os.path.normpath(PurePosixPath(path).parent / link)
    if (ROOT / target).is_dir():
        return f"{target}/README.md" if (ROOT / target / "README.md").exists() else f"{target}/{FOLDER}"
    return target


def content_of(target: str) -> str:
    """The page that a file of the repository is: itself, its code, or a folder's list of files; "": there is none."""
    path = ROOT / target
    if path.name == FOLDER and path.parent.is_dir():
        names = sorted(file.name for file in path.parent.iterdir() if file.is_file() and not file.name.startswith("."))
        return f"# {path.parent.relative_to(ROOT)}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    return text if target.endswith(".md") else shown(target, text)


def uri(target: str) -> str:
    """Where a file of the repository stands among the site's sources."""
    if target.startswith(f"{DOCS}/"):
        return target.removeprefix(f"{DOCS}/")
    return f"{ELSEWHERE}/{target}" + ("" if target.endswith(".md") else ".md")


def repository_path(src_uri: str) -> str:
    """Where a source of the site stands in the repository."""
    return src_uri.removeprefix(f"{ELSEWHERE}/") if src_uri.startswith(f"{ELSEWHERE}/") else f"{DOCS}/{src_uri}"


def shown(target: str, content: str) -> str:
    """A page that shows a file of code."""
    return f"# {target}\n\n~~~~{LANGUAGES.get(Path(target).suffix, 'text')}\n{content.rstrip()}\n~~~~\n"


def told_apart(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code or the fence of code."""
    fence = ""
    for line in lines:
        match = FENCE.match(line)
        if match and not fence:
            fence = match[1]
            yield line, True
        elif fence:
            yield line, True
            if line.strip() == fence:
                fence = ""
        else:
            yield line, False


def relinked(markdown: str, path: str, src_uri: str) -> list[str]:
    """The lines of a page, with links to the pages of the site."""

    def to_site(match: re.Match[str]) -> str:
        target = resolved(path, match[2])
        if target is None:
            return match[0]
        link = os.path.relpath(uri(target), PurePosixPath(src_uri).parent)
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    return [line if code else LINK.sub(to_site, line) for line, code in told_apart(markdown.splitlines())]


def indented(lines: list[str]) -> Iterator[str]:
    """Content of lists stands four spaces in, and lists and tables begin behind an empty line, as Python-Markdown wants it."""
    depth, before = 0, ""
    for line, code in told_apart(lines):
        spaces = len(line) - len(line.lstrip())
        item = None if code else ITEM.match(line)
        if not before.strip() and line.strip() and spaces < 2 and not item:
            depth = 0  # the list is over
        begins = (item and not spaces and not depth) or (
            not code and line.startswith("|") and not before.startswith("|")
        )
        if begins and before.strip():
            yield ""
        depth = spaces // 2 + 1 if item else depth
        yield " " * (2 * min(depth, spaces // 2)) + line if depth and line.strip() else line
        before = line
