"""The leaderboard as one HTML page: the table, and under it every protocol's own tables and files."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from data_tools.places import write_atomic
from data_tools.report.pages.style import STYLE
from fbm_dist.evaluation.leaderboard.parts import FINISHED, Resolved
from fbm_dist.evaluation.report.results import Results
from fbm_dist.evaluation.report.text import for_people, html_table, notes

NAME = "leaderboard.html"
SHOWN = (".png", ".html", ".md", ".json")  # files of a protocol that are linked
OWN_STYLE = """
.scroll { overflow-x: auto; }
.scroll table { width: auto; }
.scroll th { color: var(--soft); font-size: 12.5px; vertical-align: bottom; }
.scroll th, .scroll td { border-bottom: 1px solid var(--line); padding: 6px 18px 6px 0; white-space: nowrap; overflow-wrap: normal; }
.scroll td:not(:first-child), .scroll th:not(:first-child) { text-align: right; }
.failed { color: var(--bad); }
"""


def write_page(
    board: Results, found: Mapping[str, tuple[Resolved, Results]], failed: Mapping[str, str], folder: Path
) -> Path:
    """Write `folder`/leaderboard.html; its links lead to the protocols' folders beside it.

    Args:
        found: by the title of the part; `failed`: what was wrong, likewise.
    """
    parts = [f"<h1>{html.escape(board.title)}</h1>"]
    parts += [f'<div class="scroll">{html_table(table).replace(": ", ":<br>")}</div>' for table in for_people(board)]
    parts.append(_list(notes(board)))
    parts += [
        f'<h2>{html.escape(title)}</h2>\n<p class="failed">{html.escape(why)}</p>' for title, why in failed.items()
    ]
    for title, (resolved, results) in found.items():
        parts.append(
            f'<h2 id="{title}">{html.escape(title)}</h2>\n<p>{html.escape(results.title)}. {_files(resolved, folder)}</p>'
        )
        tables = "\n".join(
            f'<h3>{html.escape(table.heading)}</h3>\n<div class="scroll">{html_table(table)}</div>'
            for table in for_people(results)
        )
        parts.append(f"<details><summary>tables</summary>\n{tables}\n{_list(notes(results))}</details>")
    text = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(board.title)}</title>\n<style>{STYLE}{OWN_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    path = folder / NAME
    write_atomic(path, text.encode())
    return path


def _files(resolved: Resolved, folder: Path) -> str:
    """Links to what the protocol wrote, relative to the page."""
    own = resolved.folder
    there = (
        sorted(path for path in own.iterdir() if path.suffix in SHOWN and path.name != FINISHED) if own.is_dir() else []
    )
    names = [path.relative_to(folder).as_posix() for path in there]
    return ", ".join(f'<a href="{html.escape(name)}">{html.escape(name.split("/")[-1])}</a>' for name in names)


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"
