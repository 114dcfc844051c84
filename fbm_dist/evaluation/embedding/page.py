"""The page of a collection: clusters and nearest neighbours as clips that play; one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import zip_longest
from typing import Any

from data_tools.report.names import amount, percent, shown
from data_tools.report.pages.charts import bars
from data_tools.report.pages.document import document
from fbm_dist.evaluation.embedding.clips import Media
from fbm_dist.evaluation.embedding.clusters import Cluster, Found

ELEMENT = 300  # bytes of HTML around a picture or a film, but for its name

STYLE = """
h3 .swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px; vertical-align: -1px; }
h4 { margin: 14px 0 6px; font-size: 12.5px; font-weight: 400; color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(172px, 1fr)); gap: 14px 12px; }
.card { margin: 0; min-width: 0; }
.screen, .card > .none { position: relative; aspect-ratio: 4 / 3; background: #000; border-radius: 6px; overflow: hidden; }
.card .none { display: grid; place-items: center; color: #9b9892; font-size: 12.5px; height: 100%; }
.screen img, .screen video { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.screen video { opacity: 0; cursor: pointer; }
.screen video.on { opacity: 1; }
.screen:focus-within { outline: 2px solid var(--bar); outline-offset: 2px; }
.moves .screen::after { content: ""; position: absolute; right: 7px; bottom: 7px; border-left: 9px solid #fff;
  border-block: 5.5px solid transparent; filter: drop-shadow(0 0 2px #000); pointer-events: none; }
.moves .screen:has(video.on)::after { display: none; }
.card figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 5px; }
.card figcaption b { display: block; font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.card figcaption span { display: block; }
.card figcaption .folder { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.card figcaption .near { color: var(--ink); font-weight: 600; }
.card figcaption .no { color: var(--bad); }
.query { display: grid; grid-template-columns: minmax(172px, 1fr) minmax(0, 5fr); gap: 14px 24px; margin: 18px 0 0; padding: 18px 0 0;
  border-top: 1px solid var(--line); }
.query .cards { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
.query > .card .screen { box-shadow: 0 0 0 3px var(--bar); }
.map { display: block; width: 100%; max-width: 860px; height: auto; border-radius: 8px; margin: 16px 0 0; }
@media (max-width: 700px) { body { padding: 24px 16px 60px; } .cards { grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); }
  .query { grid-template-columns: minmax(0, 1fr); } .query > .card { max-width: 260px; } }
"""

# A film lies once in the page, however often it is shown, and is unpacked when it is first played.
SCRIPT = """<script>
"use strict";
(() => {
  const still = matchMedia("(prefers-reduced-motion: reduce)"), films = new Map();
  const film = (key) => {
    if (!films.has(key)) {
      const text = atob(document.getElementById("film-" + key).textContent);
      films.set(key, URL.createObjectURL(new Blob([Uint8Array.from(text, (c) => c.charCodeAt(0))], { type: "video/mp4" })));
    }
    return films.get(key);
  };
  const play = (video) => {
    if (!video.src) video.src = film(video.dataset.clip);
    video.classList.add("on");
    video.play().catch((error) => { if (error.name !== "AbortError") video.classList.remove("on"); });
  };
  const rest = (video) => { video.pause(); video.classList.remove("on"); };
  for (const video of document.querySelectorAll("video[data-clip]")) {
    video.addEventListener("pointerenter", (e) => { if (e.pointerType === "mouse" && !still.matches) play(video); });
    video.addEventListener("pointerleave", (e) => { if (e.pointerType === "mouse") rest(video); });
    video.addEventListener("click", () => (video.paused ? play : rest)(video));
    video.addEventListener("keydown", (e) => {
      if (e.key === "Enter" || e.key === " ") { e.preventDefault(); (video.paused ? play : rest)(video); }
    });
    video.addEventListener("blur", () => rest(video));
  }
})();
</script>"""


@dataclass
class Content:
    """All that a page shows.

    Attributes:
        title: name of the collection; `about`: sentences on encoder and data, as text.
        media: the clips of `found`, by key.
        colours: of the clusters, as CSS colours.
        picture: the map, as PNG; None: there is none.
        similarity: what similarities are, as text.
        settings: of the evaluation.
        left_out: cards that found no room.
    """

    title: str
    about: str
    found: Found
    media: Mapping[str, Media]
    colours: Sequence[str]
    picture: bytes | None
    picture_told: str
    similarity: str
    settings: Mapping[str, Any]
    left_out: int = 0


def shown_rows(found: Found) -> Iterator[list[dict[str, Any]]]:
    """The clips of each line of the page: of clusters, then of queries."""
    for cluster in found.clusters:
        yield cluster.central
        yield cluster.random
    for query in found.queries:
        yield [query.row, *(row for _, row in query.near)]


def page(content: Content, max_bytes: int) -> bytes:
    """The HTML, not above `max_bytes`: the first clips of every line come first, stills before films; what is left out is told.

    Where even the bare cards are too many, every line shows its first ones alone. What is not bounded: title, figures, map, settings.
    """
    content = _shortened(content, max_bytes)
    order = [row["key"] for column in zip_longest(*shown_rows(content.found)) for row in column if row is not None]
    often = Counter(order)
    around = {
        k: often[k] * (ELEMENT + 2 * _escaped(media.name) + 2 * _escaped(k)) for k, media in content.media.items()
    }
    left = max_bytes - len(_page(content, set(), set()))
    cost = {k: often[k] * _encoded(media.still) + around[k] for k, media in content.media.items() if media.still}
    stills = _within(left, often, cost)
    left -= sum(cost[key] for key in stills)
    films = _within(left, often, {k: _encoded(m.film) + around[k] for k, m in content.media.items() if m.film})
    return _page(content, stills, films)


def _shortened(content: Content, max_bytes: int) -> Content:
    """With the longest lines whose cards fit, bare as they may be."""
    longest = max(map(len, shown_rows(content.found)), default=0)
    too_long = bisect_left(
        range(longest + 1), True, key=lambda most: len(_page(_cut(content, most), set(), set())) > max_bytes
    )
    return _cut(content, max(0, too_long - 1))


def _cut(content: Content, most: int) -> Content:
    """Lines of so many cards at most; a query keeps one neighbour."""
    found = content.found
    clusters = [replace(c, central=c.central[:most], random=c.random[:most]) for c in found.clusters]
    queries = [replace(query, near=query.near[: max(1, most - 1)]) for query in found.queries] if most else []
    cut = replace(found, clusters=clusters, queries=queries)
    return replace(content, found=cut, left_out=sum(map(len, shown_rows(found))) - sum(map(len, shown_rows(cut))))


def _page(content: Content, stills: set[str], films: set[str]) -> bytes:
    draw, found = _Draw(content, stills, films), content.found
    sections = {
        **({"map": ("Map", draw.map())} if content.picture else {}),
        "clusters": ("Clusters", draw.clusters()),
        **({"neighbours": ("Nearest neighbours", draw.queries())} if found.queries else {}),
        "settings": ("Settings", f"<pre><code>{escape(json.dumps(content.settings, indent=1))}</code></pre>"),
    }
    largest = max(found.clusters, key=lambda cluster: cluster.size)
    tiles = [
        (amount(found.clips), "clips", ""),
        (amount(found.films), "films", ""),
        (amount(sum(cluster.size > 0 for cluster in found.clusters)), "clusters", "of similar clips"),
        (percent(largest.size, found.clips), "of clips in the largest", f"{amount(largest.size)} clips"),
        (percent(max(0.0, found.explained)), "of variance", "lies between clusters"),
    ]
    stored = "".join(
        f'<script type="text/plain" id="film-{escape(key)}">{base64.b64encode(content.media[key].film).decode()}</script>'
        for key in sorted(films)
    )
    return document(content.title, escape(shown(content.about)), tiles, sections, STYLE, stored + SCRIPT)


def _escaped(text: str) -> int:
    """Bytes in the page."""
    return len(escape(text).encode())


def _encoded(data: bytes) -> int:
    """Length as base64."""
    return -(-len(data) // 3) * 4


def _within(left: int, order: Iterable[str], cost: Mapping[str, int]) -> set[str]:
    """The keys that fit, the first ones of `order` first; a large one leaves room for smaller ones behind it."""
    taken: set[str] = set()
    for key in order:
        if key in cost and cost[key] <= left:
            taken.add(key)
            left -= cost[key]
    return taken


class _Draw:
    """The sections as HTML."""

    def __init__(self, content: Content, stills: set[str], films: set[str]) -> None:
        self._content, self._stills, self._films = content, stills, films

    def map(self) -> str:
        content = self._content
        text = base64.b64encode(content.picture or b"").decode()
        told = f"<p>{escape(content.picture_told)}</p>"
        return f'{told}<img class="map" alt="map of the clips, coloured by cluster" src="data:image/png;base64,{text}">'

    def clusters(self) -> str:
        found = self._content.found
        drawn = [cluster for cluster in found.clusters if cluster.central or cluster.random]
        ranked = sorted(drawn, key=lambda cluster: (-cluster.size, cluster.number))
        sizes = {f"Cluster {cluster.number}": cluster.size for cluster in ranked}
        other = sum(cluster.size for cluster in found.clusters) - sum(sizes.values())
        hidden = sum(cluster.size > 0 for cluster in found.clusters) - len(drawn)
        if hidden:
            sizes[f"{amount(hidden)} {'smaller ' if drawn else ''}clusters, not shown"] = other
        films = {key for row in shown_rows(found) for key in (r["key"] for r in row) if self._content.media[key].film}
        plays = "Clips play under the pointer, at a click, or with Enter."
        if len(self._films) < len(films):
            told = f"{amount(len(self._films))} of {amount(len(films))} clips play"
            plays += f" {told}; for all of them the page would be larger than page.max_bytes allows."
        if self._content.left_out:
            plays += f" {amount(self._content.left_out)} cards are left out: page.max_bytes has no room for them."
        return f"<p>{escape(plays)}</p>{bars(sizes, found.clips)}{''.join(map(self._cluster, ranked))}"

    def queries(self) -> str:
        parts = [f"<p>{escape(self._content.similarity)}</p>"]
        for query in self._content.found.queries:
            near = "".join(
                self._figure(row["key"], f'<span class="near">similarity {similarity:.2f}</span>')
                for similarity, row in query.near
            )
            near = f'<div class="cards">{near}</div>' if near else '<p class="none">There is no other film.</p>'
            parts.append(f'<div class="query">{self._figure(query.row["key"])}{near}</div>')
        return "".join(parts)

    def _cluster(self, cluster: Cluster) -> str:
        whole = self._content.found.clips
        films = f"{amount(cluster.films)} {'film' if cluster.films == 1 else 'films'}"
        told = f"{amount(cluster.size)} clips, {percent(cluster.size, whole)}, of {films}"
        told += f"; mean distance to the centre {cluster.distance:.3g}"
        swatch = f'<i class="swatch" style="background:{self._content.colours[cluster.number]}"></i>'
        title = f'<h3 id="cluster-{cluster.number}">{swatch}Cluster {cluster.number} <span class="soft">· {told}</span></h3>'
        lines = (("nearest to the centre", cluster.central), ("drawn by lot", cluster.random))
        return title + "".join(
            f'<h4>{name}</h4><div class="cards">{"".join(self._figure(row["key"]) for row in rows)}</div>'
            for name, rows in lines
            if rows
        )

    def _figure(self, key: str, note: str = "") -> str:
        return self._content.media[key].figure(key in self._films, key in self._stills, note)
