"""The loader beside other readers, on the same shards and in one run: `python benchmarks/loader.py [--parts decode,index]`.

    read      bytes of samples: our reading in the plan's order, webdataset's stream with its own shuffle, DALI's reader of tars
    decode    16 frames of 128 x 128 from clips of 64 frames of 160 x 128, VP9 and H.264: PyAV, torchcodec and decord called directly
    pipeline  the same as float32 batches: webdataset, PyAV and torch's DataLoader
    index     the first batch of a data set of 1,000,000 clips: seconds and memory of a fresh process
    resume    the first batch at position 10,000,000 of 100,000,000 clips beside that at 0 (13 GB of disk, removed afterwards)
    memory    of the loader over many batches

CPU time is user + system of this process and its workers, their start not counted; figures are medians over rounds, in each of which every
reader has its turn. Prints a table for each part, then one line of JSON: null is what was not run. Readers that are not installed
are left out, and said: pip install -e '.[benchmarks]'.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.big_index import write_big
from benchmarks.readers import direct, large, stored, with_dali, with_loader, with_torchcodec, with_webdataset
from benchmarks.readers.measuring import Figure, Run, interleaved, print_figures, print_table
from benchmarks.readers.starts import COLUMNS, fresh, median, row
from fbm_dist.schema import ClipSpec, Data

SPEC = ClipSpec(frames=16, size=128, reverse=0.5, mirror=0.5, mask=False)
BATCH = 8
TIMES = 100  # as many clips in the part resume as in index
DISK = 30_000_000_000  # bytes that have to be free for it; it takes 13 GB
MEMBERS = (".mp4", ".mask.png")  # what the loader reads of a sample
FIGURES = (
    "read_vs_webdataset", "decode_vs_best", "pipeline_vs_webdataset_pyav", "index_1m_seconds", "index_1m_mb", "resume_vs_start",
)  # fmt: skip
WHAT = f"{SPEC.frames} frames of {SPEC.size} x {SPEC.size} of {stored.FRAMES} of {stored.SIZE[1]} x {stored.SIZE[0]}"
MASKED = ", with masks"
CODECS: tuple[stored.Codec, ...] = ("vp9", "h264")
PACKAGES = ("av", "torchcodec", "decord", "decord2", "webdataset", "nvidia-dali-cuda130", "torch")

Result = dict[str, Any]


class Bench:
    """What the parts share: a temporary folder, how much is measured, and the data sets in it."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.rounds: int = arguments.rounds
        self.clips: int = arguments.clips
        self.batches: int = arguments.batches
        self.million_clips: int = arguments.index_clips
        self._sets: dict[str, stored.Stored] = {}

    def clips_of(self, codec: stored.Codec) -> stored.Stored:
        """4 shards of 64 clips."""
        if codec not in self._sets:
            self._sets[codec] = stored.write(self.folder / codec, codec, 256, shards=4)
        return self._sets[codec]

    def million(self) -> Data:
        """A million clips, or as many as were asked for."""
        root = self.folder / "million"
        if not root.exists():
            write_big(root, self.million_clips)
        return Data(path=root)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    arguments.add_argument("--clips", type=int, default=128, help="clips that each turn of decode and pipeline reads")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--output", type=Path, help="JSON file, e.g. benchmarks/results/loader.json; its folder is made"
    )
    arguments.add_argument("--batches", type=int, default=2_000, help="batches of the part memory; 20,000 take minutes")
    arguments.add_argument(
        "--index-clips", type=int, default=1_000_000, help="clips of the part index; resume has 100 times as many"
    )
    chosen = arguments.parse_args()
    parts = chosen.parts.split(",")
    if unknown := set(parts) - PARTS.keys():
        arguments.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with_torchcodec.find_ffmpeg()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: Result = dict.fromkeys(FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FBM_CACHE"] = str(Path(folder) / "cache")
        bench = Bench(Path(folder), chosen)
        for part in parts:
            result |= PARTS[part](bench)
    result |= {"cores": os.cpu_count(), "versions": _versions(), "parts": parts}
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def read(bench: Bench) -> Result:
    """MB of members."""
    data = stored.write(bench.folder / "read", "h264", 2048, shards=8)
    runs: dict[str, Run] = {
        "Loader, reading alone": with_loader.members(data.root, BATCH),
        "webdataset": with_webdataset.members(data.tars, None),
        "webdataset, select_files": with_webdataset.members(data.tars, MEMBERS),
        "DALI readers.webdataset": with_dali.members(data.tars, tuple(m[1:] for m in MEMBERS), BATCH, with_webdataset.SAMPLES),
    }  # fmt: skip
    figures = interleaved(runs, 600.0, bench.rounds)
    print_figures("Reading bytes of samples, page cache warm", "MB", figures)
    per_cpu = _per_cpu(figures)
    ratio = _ratio({name: value for name, value in per_cpu.items() if "DALI" not in name})
    print(f"Loader / webdataset, the faster way: {ratio:.2f}")
    return {"read_vs_webdataset": round(ratio, 2), "read_mb_per_cpu_second": _rounded(per_cpu)}


def decode(bench: Bench) -> Result:
    """Clips, decoded."""
    found, missing = direct.libraries()
    ratios: dict[str, float] = {}
    per_codec: dict[str, dict[str, float]] = {}
    tried: dict[str, dict[str, float]] = {}
    for codec in CODECS:
        data = bench.clips_of(codec)
        runs, notes = _decoders(data, SPEC)
        runs |= _first(_decoders(data, SPEC.model_copy(update={"mask": True}))[0], MASKED)
        tried[codec] = {}
        for ways in found.values():  # the fastest takes part
            speeds = _per_cpu(interleaved(_direct(data, ways), bench.clips / 4, 2))
            best = max(speeds, key=speeds.__getitem__)
            runs |= _direct(data, {best: ways[best]})
            notes[best] = direct.check(data, ways[best], SPEC.frames, SPEC.size)
            tried[codec] |= _rounded(speeds)
        figures = interleaved(runs, bench.clips, bench.rounds)
        print_figures(f"Decoding {codec}: {WHAT}", "clips", figures, notes | missing)
        per_codec[codec] = _rounded(_per_cpu(figures))
        comparable = {
            name: f for name, f in figures.items() if MASKED not in name and direct.WRONG not in notes.get(name, "")
        }
        ratios[codec] = _ratio(_per_cpu(comparable))
    print(
        f"Loader / best of {', '.join(found)}: {_said(ratios)}. Its clips are normalised float32 batches, theirs uint8."
    )
    return {
        "decode_vs_best": round(min(ratios.values()), 3),
        "decode_vs_best_by_codec": _rounded(ratios, 3),
        "decode_compared_with": list(found),
        "decode_clips_per_cpu_second": per_codec,
        "decode_ways_tried": tried,
    }


def pipeline(bench: Bench) -> Result:
    """Clips as float32 batches."""
    ratios: dict[str, float] = {}
    per_codec: dict[str, dict[str, float]] = {}
    for codec in CODECS:
        data = bench.clips_of(codec)
        runs = _first(_decoders(data, SPEC)[0])
        for process in ("worker", "main"):
            runs[f"webdataset + PyAV + DataLoader, float in {process}"] = with_webdataset.clips(
                data.tars, stored.FRAMES, SPEC.frames, SPEC.size, BATCH, process
            )
        figures = interleaved(runs, bench.clips, bench.rounds)
        print_figures(f"Batches of float32 clips, {codec}: {WHAT}", "clips", figures)
        per_codec[codec] = _rounded(_per_cpu(figures))
        ratios[codec] = _ratio(_per_cpu(figures))
    print(f"Loader / webdataset + PyAV + DataLoader: {_said(ratios)}")
    return {
        "pipeline_vs_webdataset_pyav": round(min(ratios.values()), 3),
        "pipeline_by_codec": _rounded(ratios, 3),
        "pipeline_clips_per_cpu_second": per_codec,
    }


def index(bench: Bench) -> Result:
    """The first batch of a large data set, the index cached (what ranks see) or not (the first start on a machine: once)."""
    data = bench.million()
    cold = [fresh(data)]
    warm = [fresh(data) for _ in range(bench.rounds)]
    rows = [row(name, starts) for name, starts in (("index cached", warm), ("index built", cold))]
    print_table(
        f"First batch of {bench.million_clips:,} clips; memory above the imports up to it, and to batch 50, in MB",
        COLUMNS,
        rows,
    )
    return {
        "index_1m_seconds": median(warm, "seconds", 2),
        "index_1m_mb": median(warm, "mb", 1),
        "index_1m_cold_seconds": median(cold, "seconds", 2),
        "index_1m_cold_mb": median(cold, "mb", 1),
        "index_1m_mb_later": median(warm, "mb_later", 1),
        "index_1m_parts": {who: warm[0][who] for who in ("main", "readers")},
        "index_clips": bench.million_clips,
    }


def resume(bench: Bench) -> Result:
    """The first batch far into a very large data set, beside that at its beginning."""
    free = shutil.disk_usage(bench.folder).free
    if free < DISK:
        print(
            f"resume: left out, {bench.folder} has {free / 1e9:.0f} GB free and it takes {DISK / 1e9:.0f}; set TMPDIR to another disk"
        )
        return {}
    data = large.repeated(bench.million(), bench.folder / "large", TIMES)
    positions = (0, bench.million_clips * TIMES // 10)
    result: Result = {}
    rows = []
    for shuffle in ("global", "blocks"):
        # no choice of a decoder, which a first start would measure
        settings = data.model_copy(update={"shuffle": shuffle, "decode": "pyav"})
        with_loader.first_batch(settings, BATCH, 0)  # the pages of the files in memory
        starts = [[with_loader.first_batch(settings, BATCH, p) for p in positions] for _ in range(2 * bench.rounds + 1)]
        medians = [statistics.median(seconds) for seconds in zip(*starts, strict=True)]
        for position, seconds, middle in zip(positions, zip(*starts, strict=True), medians, strict=True):
            rows.append((f"{shuffle}, at {position:,}", f"{middle:.2f}", f"{min(seconds):.2f} - {max(seconds):.2f}"))
        name = "resume_vs_start" if shuffle == "global" else "resume_vs_start_blocks"
        result |= {name: round(medians[1] / medians[0], 3), f"resume_{shuffle}_seconds": [round(m, 2) for m in medians]}
    print_table(f"First batch of {bench.million_clips * TIMES:,} clips", ("start", "seconds", "least - most"), rows)
    return result


def memory(bench: Bench) -> Result:
    """Of one rank over many batches of tiny clips."""
    data = stored.write(bench.folder / "tiny", "vp9", 256, frames=8, size=(32, 32))
    settings = Data(path=data.root, clip=ClipSpec(frames=4, size=16, reverse=0.5, mirror=0.5))
    found = fresh(settings, batches=bench.batches, every=max(1, bench.batches // 20))
    series = found["over_time"]
    rows = [(f"{batch:,}", f"{main:,.1f}", f"{readers:,.1f}") for batch, main, readers in series]
    print_table("Memory above the imports over time, MB", ("batches", "main", "readers"), rows)
    (_, *early), (_, *late) = series[1], series[-1]  # at 10 % and at the end
    return {"memory_growth_mb": round(sum(late) - sum(early), 1), "memory_batches": bench.batches}


def _decoders(data: stored.Stored, spec: ClipSpec) -> tuple[dict[str, Run], dict[str, str]]:
    """The loader with each decoder that reads these clips, what `decode: auto` chooses first, and notes on decoders."""
    settings, notes = with_loader.decoders(data.root, spec)
    runs = {f"Loader, {name}": with_loader.clips(chosen, BATCH) for name, chosen in settings.items()}
    return runs, {f"Loader, {name}": note for name, note in notes.items()}


def _first(runs: Mapping[str, Run], addition: str = "") -> dict[str, Run]:
    name, run = next(iter(runs.items()))
    return {name + addition: run}


def _direct(data: stored.Stored, variants: Mapping[str, Any]) -> dict[str, Run]:
    return {name: direct.clips(data, way, SPEC.frames, SPEC.size) for name, way in variants.items()}


def _per_cpu(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: figure.per_cpu_second for name, figure in figures.items()}


def _ratio(per_cpu: Mapping[str, float]) -> float:
    """The best of the loader's rows over the best of the others."""
    ours = {name for name in per_cpu if name.startswith("Loader")}
    return max(per_cpu[name] for name in ours) / max(per_cpu[name] for name in per_cpu.keys() - ours)


def _rounded(values: Mapping[str, float], places: int = 1) -> dict[str, float]:
    return {name: round(value, places) for name, value in values.items()}


def _said(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{codec} {ratio:.2f}" for codec, ratio in ratios.items())


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


PARTS: dict[str, Callable[[Bench], Result]] = {
    "read": read,
    "decode": decode,
    "pipeline": pipeline,
    "index": index,
    "resume": resume,
    "memory": memory,
}

if __name__ == "__main__":
    main()
