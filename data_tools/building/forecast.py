"""plan: what a `prepare` of so many films would take, predicted from a random sample that is really made."""

from __future__ import annotations

import json
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles

from data_tools.building.ledger import read_ledger
from data_tools.building.pipeline import prepare_films
from data_tools.places import size_of
from data_tools.progress import Progress, Silent
from data_tools.schema import Plan, Prepare
from data_tools.sources.films import Film, Found, pictures_in
from data_tools.sources.inputs import discover
from data_tools.unlc.device import gpus_of

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Forecast:
    """What `plan` predicts, and from what."""

    films: int  # predicted for
    sample_films: int
    sample_frames: int
    frames: float
    frames_low: float  # 95 % interval of `frames`: what the choice of the sample may have done
    frames_high: float
    clips: float
    core_hours: float
    hours: float  # on `cores` cores, if they scale as those that were measured
    cores: int
    films_per_hour: float
    gpu_hours: float  # with as many workers to a GPU as were measured; 0: masks are made on CPU
    bytes: float
    cost: float

    def lines(self) -> list[str]:
        """The report, a line each; the last is the figures as JSON."""
        return [
            f"measured: {self.sample_films} films, {self.sample_frames} frames",
            f"predicted for {self.films} films: {self.frames:,.0f} frames "
            f"({self.frames_low:,.0f} to {self.frames_high:,.0f}), {self.clips:,.0f} clips",
            f"  {self.films_per_hour:,.0f} films/h on {self.cores} cores: {self.hours:.3g} h, {self.core_hours:.3g} core-hours, "
            + (f"{self.gpu_hours:.3g} GPU-hours" if self.gpu_hours else "no GPU"),
            f"  {self.bytes / 1e9:.3g} GB of shards",
            f"  cost: {self.cost:.2f}",
            json.dumps(asdict(self)),
        ]


def plan(settings: Plan, progress: Progress | None = None) -> Forecast:
    """Make a sample of the films for real, in a temporary folder, and scale up what it took.

    Frames are scaled by the bytes of the files where all have known ones (long films are large), else by their number; time, clips
    and bytes of shards by frames.

    Raises:
        ValueError: no input, or no usable film in the sample.
    """
    progress = progress or Silent()
    found, rows = discover(Prepare.model_validate(_prepare_keys(settings, "plan")))
    if not found.films:
        raise ValueError(
            f"{', '.join(settings.inputs)}: no usable film to measure; {len(found.rejected)} were rejected"
        )
    chosen = random.Random(settings.seed).sample(found.films, min(settings.sample, len(found.films)))
    chosen.sort(key=lambda film: film.source)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        output = Path(folder) / "sample"
        made = Prepare.model_validate(_prepare_keys(settings, str(output)))
        begun, used_before = time.monotonic(), _cpu_seconds()
        summary = prepare_films(Found(chosen, []), {f.source: rows[f.source] for f in chosen}, made, progress)
        seconds, cpu_seconds = time.monotonic() - begun, _cpu_seconds() - used_before
        outcomes = {o.source: o for o in read_ledger(output)}
    frames = [outcomes[film.source].film_frames for film in chosen]
    total = settings.films or len(found.films)
    predicted, low, high = _scaled_up(chosen, frames, found.films, total)
    per_frame = predicted / max(1, sum(frames))
    gpu_hours = seconds / 3600 * per_frame * gpus_of(made)
    cores = settings.cores or settings.num_workers
    hours = seconds / 3600 * per_frame * settings.num_workers / cores
    return Forecast(
        films=total,
        sample_films=len(chosen),
        sample_frames=sum(frames),
        frames=predicted,
        frames_low=low,
        frames_high=high,
        clips=summary.clips * per_frame,
        core_hours=cpu_seconds / 3600 * per_frame,
        hours=hours,
        cores=cores,
        films_per_hour=total / hours,
        gpu_hours=gpu_hours,
        bytes=summary.bytes * per_frame,
        cost=hours * cores * settings.core_hour + gpu_hours * settings.gpu_hour,
    )


def _prepare_keys(settings: Plan, output: str) -> dict[str, object]:
    given = {name: getattr(settings, name) for name in Prepare.model_fields}
    return given | {"output": output, "executor": "local"}


def _scaled_up(
    chosen: Sequence[Film], frames: Sequence[int], films: Sequence[Film], total: int
) -> tuple[float, float, float]:
    """Frames of `total` films, and a 95 % interval by bootstrap over the sample (Efron 1979)."""
    sizes = [_bytes_of(film) for film in chosen]
    everything = [_bytes_of(film) for film in films] if all(sizes) else []
    by_bytes = bool(everything) and all(everything)
    weights = [float(size or 0) for size in sizes] if by_bytes else [1.0] * len(chosen)
    whole = (sum(s or 0 for s in everything) / len(films) if by_bytes else 1.0) * total

    def ratio(picked: Sequence[int]) -> float:
        return sum(frames[i] for i in picked) / sum(weights[i] for i in picked) * whole

    draw = random.Random(0)
    count = range(len(chosen))
    ratios = quantiles([ratio(draw.choices(count, k=len(chosen))) for _ in range(RESAMPLES)], n=40)
    return ratio(count), ratios[0], ratios[-1]


def _bytes_of(film: Film) -> int | None:
    """Of its files; None where it cannot be told without fetching it."""
    if film.kind == "frames":
        return sum(size_of(path) or 0 for path in pictures_in(film.path)) or None
    return None if str(film.path).startswith("http") else size_of(film.path)


def _cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
