"""The frame of a page: one HTML file that needs no other file, with a title, a line of facts, tiles and sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from data_tools.report.names import shown
from data_tools.report.pages.style import STYLE


def document(
    title: str,
    about: str,
    tiles: Sequence[tuple[str, str, str]],
    sections: Mapping[str, tuple[str, str]],
    style: str = "",
    tail: str = "",
) -> bytes:
    """The whole file.

    Args:
        title: as text; everything else is HTML.
        about: below the title.
        tiles: figure, what it counts, and more about it.
        sections: by anchor: title and body.
        style: CSS beside the common one; `tail`: what stands at the end of the body.
    """
    name = escape(shown(title))
    cells = "".join(f"<div><b>{value}</b>{what}<span>{more}</span></div>" for value, what, more in tiles)
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, (heading, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{heading}</h2>{text}</section>' for key, (heading, text) in sections.items()
    )
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style></head><body>'
        f'<header><h1><bdi>{name}</bdi></h1><p>{about}</p><div class="tiles">{cells}</div><nav>{links}</nav></header>'
        f"{body}{tail}</body></html>\n"
    )
    return html.encode("utf-8", "backslashreplace")
