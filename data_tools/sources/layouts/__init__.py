"""Public data sets as their authors distribute them, one file a data set; `read` says what is known about each film of a folder."""

from __future__ import annotations

from collections.abc import Sequence

from data_tools.places import Place
from data_tools.sources.layouts import five_contexts, hmdb51, kth, ucf101
from data_tools.sources.layouts.layout import Options, Reader, Said

READERS: dict[str, Reader] = {
    "ucf101": ucf101.read,
    "hmdb51": hmdb51.read,
    "kth": kth.read,
    "five_contexts": five_contexts.read,
}

__all__ = ["READERS", "Options", "Said", "read"]


def read(layout: str, root: Place, sources: Sequence[str], options: Options) -> Said:
    """What the data set `layout` says about the films of a folder.

    Args:
        layout: a name of `READERS`.
        root: the folder, on a disk or in a store.
        sources: its films, as `films.find` names them: relative to the folder, with forward slashes.
        options: which of its splits and boxes.
    Raises:
        ValueError: the folder holds no such data set, or lacks its lists; one line that says what to do.
    """
    return READERS[layout](root, sources, options)
