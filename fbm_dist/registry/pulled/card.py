"""README.md of a pulled folder: card.md filled with what config.json and the registry know, and with nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from fbm_dist.registry.catalogue import Entry, Evaluated
from fbm_dist.registry.folder import Description
from fbm_dist.schema import ClipSpec

TEMPLATE = Path(__file__).with_name("card.md")
UNKNOWN = "not recorded"
LONGEST = 300  # characters of a text that comes from outside
RESIZED = {
    "squash": "the whole frame, squashed to a square",
    "crop": "a square from the frame's centre",
    "box": "while training a square around what moves; the whole frame or any square around the thing will do",
}


def card(version: Entry, description: Description, evaluations: Sequence[Evaluated], files: Mapping[str, str]) -> str:
    """The model card in markdown, with the YAML front matter that Hugging Face's hub reads.

    Args:
        files: sha256 by name, of the files beside it.
    """
    objective, info = description.objective, description.info
    clip = objective.pictures(description.clip)
    low, high = description.value_range
    values: dict[str, Any] = {
        "family": objective.family,
        "title": f"{plain(version.name)}, version {version.version}",
        "labelled": f" ({plain(info['labels'])} labels were learnt after that)" if info.get("labels") else "",
        "paper": " ".join((type(objective).__doc__ or "").split("\n\n")[0].split()),
        "uri": plain(version.uri),
        "aliases": f" ({', '.join(map(plain, version.aliases))} when it was pulled)" if version.aliases else "",
        "created": time.strftime("%Y-%m-%d", time.gmtime(version.created)),
        "parameters": f"{description.parameters:,}",
        "frames": objective.frames,
        "plural": "" if objective.frames == 1 else "s",
        "size": objective.size,
        "names": ", ".join(f"{name} (1, {length})" for name, length in description.features.items()),
        "low": f"{low:g}",
        "high": f"{high:g}",
        "spacing": _spacing(clip),
        "rate": _counts(_films(info).get("fps"), " frames/s") or f"{UNKNOWN}; as the training films had it",
        "resize": RESIZED[clip.resize],
        "features": _rows(description.features),
        "run": _run(version, info),
        "digest": _code(info.get("data_digest")),
        "steps": _number(info.get("steps")),
        "clips": _number(info.get("clips")),
        "began": plain(info["init_from"]) if info.get("init_from") else "random weights",
        "code": code_of(info, version.tags),
        "licences": _counts(_films(info).get("licences")) or f"{UNKNOWN}; ask who made the data set",
        "metrics": _metrics(version.metrics),
        "tables": "\n\n".join(map(_table, evaluations)),
        "files": "\n".join(f"| `{name}` | `{digest}` |" for name, digest in sorted(files.items())),
    }
    return re.sub(r"\n{3,}", "\n\n", Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values))


def plain(value: object) -> str:
    """Text from outside as one line that is no markup: tags, links and table cells are not made of it."""
    text = " ".join(str(value).split())[:LONGEST]
    return re.sub(r"[\\`|<>\[\]$]", lambda found: f"&#{ord(found[0])};", text)


def code_of(info: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """The version of the code that trained it, as far as it is known."""
    code = info.get("code")
    if not isinstance(code, dict):
        commit = tags.get("git.commit")
        return f"commit {_code(commit)}" if commit else UNKNOWN
    commit = f"commit {_code(code['git_commit'])}" if code.get("git_commit") else "no commit known"
    changed = ", with uncommitted changes" if code.get("git_changes") else ""
    packages = code.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    return f"{commit}{changed}" + (f"; torch {plain(torch)}" if torch else "")


def _films(info: Mapping[str, Any]) -> Mapping[str, Any]:
    films = info.get("films")
    return films if isinstance(films, dict) else {}


def _run(version: Entry, info: Mapping[str, Any]) -> str:
    name = plain(info["run"]) if info.get("run") else UNKNOWN
    return f"{name} (MLflow run {_code(version.run_id)})" if version.run_id else name


def _spacing(clip: ClipSpec) -> str:
    if clip.frames == 1:
        return "a single one"
    if clip.offsets:
        return f"those at {', '.join(map(str, clip.offsets))}"
    return "consecutive ones" if clip.stride == 1 else f"every {clip.stride}th one"


def _rows(lengths: Mapping[str, int]) -> str:
    return "\n".join(f"| `{name}` | {length} |" for name, length in lengths.items())


def _metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "None is recorded: `python launch/evaluate.py configs/evaluate/probes.yaml encoder=... data.path=DIR` measures it."
    return "\n".join(["| metric | value |", "|---|---|", *(f"| `{plain(k)}` | {v:.6g} |" for k, v in metrics.items())])


def _table(found: Evaluated) -> str:
    if found.table is None:
        return f"The tables of `{found.protocol}` are not there any more (MLflow run `{found.run_id}`)."
    where = f" on {plain(Path(found.data).name)}" if found.data else ""
    return f"[`evaluation/{found.protocol}.md`](evaluation/{found.protocol}.md): the tables of the protocol {found.protocol}{where}."


def _counts(counts: Any, unit: str = "") -> str:
    """`25 frames/s (1,200 clips), 30 ...`, the most frequent first."""
    if not isinstance(counts, dict) or not all(isinstance(number, int) for number in counts.values()):
        return ""
    several = sorted(counts.items(), key=lambda item: -item[1])
    told = [f"{plain(name)}{unit} ({number:,} clips)" for name, number in several[:8]]
    return ", ".join(told) + (f" and {len(several) - 8} others" if len(several) > 8 else "")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else UNKNOWN


def _code(value: object) -> str:
    return f"`{plain(value)}`" if value else UNKNOWN
