"""Who must not be in a data set: ids, sources or film ids that were scrubbed, and those of a list that the user gives."""

from __future__ import annotations

from data_tools.places import Place, line, read_bytes

OPTOUTS = "optouts.txt"  # in the data set's folder: what `scrub` removed


def read_optouts(root: Place, more: Place | None = None) -> frozenset[str]:
    """All of them, one a line in each file.

    Raises:
        ValueError: `more` cannot be read.
    """
    found: set[str] = set()
    for path in (root / OPTOUTS, more):
        if path is None:
            continue
        try:
            found |= read_names(path)
        except FileNotFoundError:
            if path is more:
                raise ValueError(f"{path}: no such file; `optouts` names a list of ids, one a line") from None
    return frozenset(found)


def read_names(path: Place) -> set[str]:
    """The lines of a text file.

    Raises:
        ValueError: it cannot be read, or is no text.
        FileNotFoundError: there is none.
    """
    try:
        return {text.strip() for text in read_bytes(path).decode("utf-8-sig").splitlines()} - {""}
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {line(error)}") from None
