"""The figures of `stats` as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_tools.report.names import amount, percent, short, shown, size

WIDTH = 16  # of the column of names
MEMBERS = {"mp4": "video", "png": "pictures", "mask.png": "soft masks", "truth.png": "true masks"}
MISSING = {
    "id": "the user's id",
    "split": "split",
    "licence": "licence",
    "attribution": "attribution",
    "labels": "labels",
    "fingerprint": "fingerprint",
    "masks": "soft masks",
    "truth": "true masks",
}
DISTRIBUTIONS = {"foreground": "of a frame", "border": "of the border band", "flatness": "", "consistency": ""}


def lines(found: Mapping[str, Any]) -> list[str]:
    """`Statistics.json`, a line or a few for each thing."""
    return [
        row
        for part in (_films, _clips, _video, _labels, _masks, _rules, _missing)
        for row in part(found)  # type: ignore[operator]
    ]


def shares_of(members: Mapping[str, int]) -> dict[str, int]:
    """Bytes of the members of samples by what they are for."""
    named = {name: members[extension] for extension, name in MEMBERS.items() if extension in members}
    other = sum(count for extension, count in members.items() if extension not in MEMBERS)
    return named | ({"metadata": other} if other else {})


def _row(name: str, text: str) -> str:
    return f"{name:{WIDTH}}{text}"


def _films(found: Mapping[str, Any]) -> Iterator[str]:
    films = found["films"]
    yield _row("data set", f"{shown(found['name'])}, snapshot {found['snapshot']}, digest {found['digest'][:16]}")
    if films["used"] is None:
        yield _row("films", f"{amount(films['with_clips'])} have clips; films.jsonl is missing: others are not known")
    else:
        unused = f"{amount(films['skipped'])} skipped, {amount(films['failed'])} failed"
        yield _row("films", f"{amount(films['used'])} used, {unused}; {amount(films['with_clips'])} have clips")
    for reason, count in films["reasons"].items():
        yield _row("", f"{amount(count)} x {shown(reason)}")


def _clips(found: Mapping[str, Any]) -> Iterator[str]:
    stored = found["bytes"]
    yield _row(
        "clips", f"{amount(found['clips'])} with {amount(found['frames'])} frames: {found['hours']:.2f} hours of video"
    )
    each = f"{size(stored['per_clip'])} a clip, {size(stored['per_frame'])} a frame"
    yield _row("bytes", f"{size(stored['total'])} in {amount(stored['shards'])} shards; {each}")
    parts = shares_of(stored["members"])
    whole = sum(parts.values())
    yield _row("", ", ".join(f"{name} {percent(part, whole)}" for name, part in parts.items()))


def _video(found: Mapping[str, Any]) -> Iterator[str]:
    yield _row("shots per film", _spread(found["shots_per_film"], "not known"))
    yield _row("clip length", _spread(found["clip_frames"], "-", " frames"))
    for name, key in (("width x height", "sizes"), ("frames/second", "fps"), ("codec", "codecs"), ("split", "splits")):
        yield _row(name, _counts(found[key]))
    groups = found["num_groups"]
    yield _row("group", f"{amount(groups)} named" if groups else "none named: each film is its own")
    yield _row("licence", _counts(found["licences"]))


def _labels(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["labels"]:
        yield _row("labels", "none")
    for name, label in found["labels"].items():
        yield _row("label", f"{shown(name)}: {amount(label['classes'])} classes on {amount(label['clips'])} clips")
        more = label["classes"] - len(label["top"])
        yield _row("", _counts(label["top"]) + (f", {amount(more)} more" if more else ""))


def _masks(found: Mapping[str, Any]) -> Iterator[str]:
    yield _row("soft masks", _counts(found["kinds"]))
    for name, unit in DISTRIBUTIONS.items():
        if found[name] is not None:
            yield _row(name, _spread(found[name], "-") + (f" {unit}" if unit else ""))


def _rules(found: Mapping[str, Any]) -> Iterator[str]:
    keep = found["keep"]
    if keep["judged_clips"]:
        for name, key in (("stored rules", "stored"), ("paper's rules", "paper")):
            kept = keep[key]["kept_clips"]
            text = (
                f"keep {amount(kept)} of {amount(keep['judged_clips'])} clips ({percent(kept, keep['judged_clips'])})"
            )
            reasons = "; ".join(f"{amount(n)} x {reason}" for reason, n in keep[key]["reasons"].items())
            yield _row(name, text + (f"; not: {reasons}" if reasons else ""))
    else:
        yield _row("pruning rules", "have judged nothing: there are no soft masks")
    for number, count in found["single_frames"].items():
        yield _row("single frames", f"{amount(count)} at {number} a shot")


def _missing(found: Mapping[str, Any]) -> Iterator[str]:
    clips = found["clips"]
    for key, name in MISSING.items():
        absent = found["missing"].get(key, 0)
        if absent:
            yield _row("missing", f"{name}: in {'all' if absent == clips else amount(absent)} of {amount(clips)} clips")


def _spread(summary: Mapping[str, Any] | None, nothing: str, unit: str = "") -> str:
    if summary is None:
        return nothing
    if summary["min"] == summary["max"]:
        return f"{short(summary['min'])}{unit}"
    middle = f"median {short(summary['median'])}{unit}, half of all within {short(summary['p25'])} to {short(summary['p75'])}"
    return f"{middle}, all within {short(summary['min'])} to {short(summary['max'])}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(value)} ({amount(count)})" for value, count in counts.items()) or "none given"
