"""Names and numbers for people: what a stranger's file is called must not play tricks with a terminal or a page."""

from __future__ import annotations


def shown(text: str) -> str:
    """A text in one line without characters that are not printable (line ends, terminal codes, reversals): escapes instead."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def amount(number: float) -> str:
    """A count with separators: 12,345."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes: 512 B, 3.4 kB, 12 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    digits = 0 if unit == "B" or number >= 10 else 1
    return f"{number:,.{digits}f} {unit}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share: 12 %, 3.4 %, 0.05 %; "-" of nothing."""
    if not whole:
        return "-"
    share = 100 * part / whole
    digits = 0 if share >= 10 or share == 0 else 1 if share >= 1 else 2
    return f"{share:.{digits}f} %"


def short(number: float) -> str:
    """A number for an axis or a sentence: 0.05, 12.5, 1200; no more than three digits after the point."""
    return f"{number:.3f}".rstrip("0").rstrip(".") if number % 1 else f"{number:.0f}"
