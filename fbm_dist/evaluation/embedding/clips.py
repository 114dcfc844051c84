"""Clips as they stand on a page: a still picture, the stored film itself, and what is known, credits among it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from data_tools.places import Place
from data_tools.report.names import shown
from data_tools.report.pages.cards import QUALITY, picture, webp
from data_tools.report.pages.contact_sheet import pictures
from data_tools.sample import Metadata, Sample
from data_tools.shards import read_rows, read_sample
from data_tools.videos import decode_clip


@dataclass(frozen=True)
class Media:
    """One clip.

    Attributes:
        metadata: of the sample; None where it cannot be read, and `trouble` says why.
        still: its middle frame as WebP.
        film: the mp4 as it is stored; empty where the clip is a single picture.
    """

    key: str
    metadata: Metadata | None
    still: bytes = b""
    film: bytes = b""
    trouble: str = ""

    @property
    def name(self) -> str:
        """Of its film, for people."""
        return shown(self.metadata.source) if self.metadata else self.key

    def figure(self, moves: bool, still: bool, note: str = "") -> str:
        """HTML.

        Args:
            moves: with the film, which the page's script finds by the key; `still`: with the picture.
            note: HTML beside the facts, e.g. a similarity.
        """
        if self.metadata is None:
            told = f'<b>{escape(self.key[:10])}</b><span class="no">{escape(shown(self.trouble))}</span>'
            return (
                f'<figure class="card"><div class="none">cannot be read</div><figcaption>{told}</figcaption></figure>'
            )
        body = picture(self.still) if still else '<div class="none">no picture</div>'
        if moves:
            name = escape(self.name)
            body += '<video muted loop playsinline preload="none" tabindex="0" '
            body += f'data-clip="{escape(self.key)}" aria-label="{name}"></video>'
        kind = "card moves" if moves else "card"
        told = f"<figcaption>{note}{_facts(self.metadata)}</figcaption>"
        return f'<figure class="{kind}"><div class="screen">{body}</div>{told}</figure>'


def read_media(root: Place, rows: Iterable[Mapping[str, Any]], height: int) -> dict[str, Media]:
    """The clips of rows that have key and shard, by key; each is read once, a shard's together.

    Args:
        height: of the still, in pixels.
    """
    by_shard: dict[str, set[str]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], set()).add(row["key"])
    found: dict[str, Media] = {}
    for shard, keys in sorted(by_shard.items()):
        try:
            stored = {row["key"]: row for row in read_rows(root, shard) if row["key"] in keys}
        except ValueError as error:
            found |= {key: Media(key, None, trouble=str(error)) for key in keys}
            continue
        for key in sorted(keys):
            found[key] = _media(root, stored[key], height)
    return found


def _media(root: Place, row: Mapping[str, Any], height: int) -> Media:
    try:
        sample = read_sample(root, row)
        frames = decode_clip(sample.video)
    except (ValueError, OSError) as error:
        return Media(row["key"], None, trouble=str(error))
    bare = Sample(sample.key, sample.metadata, sample.video)  # without its masks
    still = webp(pictures(bare, frames, [len(frames) // 2], height), QUALITY)
    return Media(sample.key, sample.metadata, still, b"" if sample.metadata.codec == "png" else sample.video)


def _facts(meta: Metadata) -> str:
    folder, _, name = shown(meta.source).rpartition("/")
    parts = [f"shot {meta.shot}, frames {meta.span[0]} to {meta.span[1]}"]
    parts += [" · ".join(f"{label}: {value}" for label, value in meta.labels.items())]
    parts += [", ".join(credit for credit in (meta.attribution, meta.licence) if credit)]
    told = "".join(f"<span><bdi>{escape(shown(part))}</bdi></span>" for part in parts if part)
    whole = f'<span class="folder"><bdi>{escape(folder)}/</bdi></span>' if folder else ""
    return f'<b title="{escape(shown(meta.source))}"><bdi>{escape(name)}</bdi></b>{whole}{told}'
