"""Synthetic films on disk: encoded, with masks and labels; a film is complete or absent, and is made once."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from data_tools.building.lock import exclusive
from data_tools.config import ConfigError
from data_tools.execution.processes import Crew, Done, Failed
from data_tools.places import write_atomic
from data_tools.synthetic import digits
from data_tools.synthetic.config import COVERAGE, Films, MovingMnist
from data_tools.synthetic.factors import FilmPlan, Shot, plan
from data_tools.synthetic.scene import compose, render

GENERATOR = 1  # raise it when the same settings give other pixels: a folder never mixes two generators
SETTINGS = "synthesize.json"
UNSAID = {
    "coverage": list(COVERAGE)
}  # a record that does not name these keys was made with these values: they came later
SILENCE = 300.0  # seconds that one frame may take before its film is given up

# Ordinary files, as cameras and the web have them (long groups of pictures, B-frames), unlike the clips in shards, which
# `data_tools.videos.encode` writes for random access. One thread: the bytes are a function of the frames. No macroblock tree:
# the x264 that PyAV 18 brings reads memory there that nobody wrote, and the same frames gave other bytes (MALLOC_PERTURB_ shows it).
ENCODERS: dict[str, tuple[str, int, dict[str, str]]] = {
    "h264": ("libx264", 23, {"preset": "veryfast", "threads": "1", "x264-params": "threads=1:mbtree=0"}),
    "vp9": (
        "libvpx-vp9",
        33,
        {"b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "0", "threads": "1", "lag-in-frames": "0"},
    ),
}


@dataclass(frozen=True)
class Summary:
    """What a folder holds after `synthesize`."""

    labels: Path
    films: int
    made: int  # of the films, how many this call made; the others were there
    shots: int
    frames: int
    bytes: int  # of the encoded films, without masks
    seconds: float

    def __str__(self) -> str:
        size = f"{self.bytes / 1e6:.1f} MB"
        return (
            f"{self.films} films ({self.made} new), {self.shots} shots, {self.frames} frames, {size} of video in "
            f"{self.seconds:.1f} s; labels: {self.labels}"
        )


def synthesize(settings: Films, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Write `films/NAME.mp4`, `masks/NAME/00000.png` (1 bit, one a frame) and `labels.csv` (one row a shot) to `output`.

    The bytes are a function of the settings without `films`, `workers` and `output`. Running again makes only what
    is missing; labels.csv is written last. More films may be asked for later.

    Args:
        settings: what to make.
        progress: called with (films there, films wanted), first before any is made.
    Raises:
        ConfigError: the folder was made with other settings, holds more films, or holds something else.
        ValueError: another call is at work in the folder, or a worker process died: then the other films are made, and
            running again makes the rest.
        OSError: the disk is full or may not be written to.
    """
    began = time.monotonic()
    output, films = settings.output, _planned(settings)
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; give a folder")
    output.mkdir(parents=True, exist_ok=True)
    with exclusive(output, "synthesize"):
        _claim(settings)
        missing = [film for film in films if not _complete(output, film)]
        if progress:
            progress(len(films) - len(missing), len(films))
        for i, _ in enumerate(_make(settings, missing), 1):
            if progress:
                progress(len(films) - len(missing) + i, len(films))
        shutil.rmtree(output / ".making", ignore_errors=True)
        write_atomic(output / "labels.csv", _labels(settings, films).encode())
    return Summary(
        labels=output / "labels.csv",
        films=len(films),
        made=len(missing),
        shots=sum(len(film.shots) for film in films),
        frames=sum(film.num_frames for film in films),
        bytes=sum(_video(output, film).stat().st_size for film in films),
        seconds=time.monotonic() - began,
    )


def make_in_worker(job: tuple[Films, FilmPlan], beat: Callable[[int], None]) -> None:
    """One job of `data_tools.execution.processes`."""
    cv2.setNumThreads(1)  # a process for each core: more threads only get in each other's way
    make_film(*job, beat)


def make_film(settings: Films, film: FilmPlan, beat: Callable[[int], None] = lambda frames: None) -> None:
    """Render, encode and put in place one film and its masks; the video comes last and says that both are complete."""
    output = settings.output
    making = output / ".making" / film.name
    shutil.rmtree(making, ignore_errors=True)
    (making / "masks").mkdir(parents=True)
    masks = output / "masks" / film.name
    with (making / "film.mp4").open("wb") as file:
        encode(_frames(settings, film, making / "masks", beat), settings, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(masks, ignore_errors=True)  # of an earlier try that ended between the two renames below
    (making / "masks").rename(masks)
    (making / "film.mp4").rename(_video(output, film))
    making.rmdir()


def encode(frames: Iterator[UInt8[np.ndarray, "h w 3"]], settings: Films, file: Any) -> None:
    """RGB frames -> an mp4 (yuv420p, BT.601, limited range) in `file`, streamed: a film is never in memory as a whole."""
    name, crf, options = ENCODERS[settings.codec]
    options = options | {"crf": str(settings.crf if settings.crf is not None else crf), "flags": "+bitexact"}
    height, width = settings.size
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(name, rate=Fraction(settings.fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, settings.fps)
        stream.codec_context.colorspace = 6  # SMPTE 170M, what swscale writes
        stream.codec_context.color_range = 1  # limited
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=5, dst_color_range=1)
            frame.pts, frame.time_base = i, Fraction(1, settings.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames(
    settings: Films, film: FilmPlan, masks: Path, beat: Callable[[int], None]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The film's frames in order; their masks are written on the way."""
    for shot in film.shots:
        for i, (frame, mask) in enumerate(_drawn(settings, film, shot), shot.start):
            Image.fromarray(mask).save(masks / f"{i:05d}.png", compress_level=6)
            yield frame
            beat(1)


def _planned(settings: Films) -> list[FilmPlan]:
    return digits.plan(settings) if isinstance(settings, MovingMnist) else plan(settings)


def _drawn(
    settings: Films, film: FilmPlan, shot: Shot
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
    if isinstance(settings, MovingMnist):
        return digits.render(settings, film)
    return render(compose(settings, film.number, shot))


def _make(settings: Films, films: list[FilmPlan]) -> Iterator[None]:
    """Make films, in as many processes as there is work for; yields once for each one made."""
    count = min(settings.workers or len(os.sched_getaffinity(0)), len(films))
    if count <= 1:
        for film in films:
            make_film(settings, film)
            yield
        return
    failed: list[str] = []
    jobs = [(settings, film) for film in films]
    with Crew(count, SILENCE) as crew:
        for event in crew.run("data_tools.synthetic.write:make_in_worker", jobs):
            if isinstance(event, Done):
                yield
            elif isinstance(event, Failed):
                failed.append(f"{films[event.job].name}: {event.reason}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(films)} films could not be made ({failed[0]}); run the same command again for the rest"
        )


def _claim(settings: Films) -> None:
    """Make the output folder this call's own, or refuse it by name."""
    output = settings.output
    told = {"generator": GENERATOR, **settings.model_dump(mode="json", exclude={"output", "films", "workers"})}
    if isinstance(settings, MovingMnist):
        told |= digits.told(settings)
    record = output / SETTINGS
    if record.exists():
        _compare(record, told)
        there = {path.name for path in (output / "films").glob("film-*.mp4")}
        extra = len(there - {f"{film.name}.mp4" for film in _planned(settings)})
        if extra:
            raise ConfigError(
                f"films: {output} holds {len(there)} films; ask for films={len(there)} or more, or give another output"
            )
    elif any(output.iterdir()):
        raise ConfigError(f"output: {output} is not empty and was not made by synthesize; give another folder")
    said = {key: value for key, value in told.items() if key not in UNSAID or UNSAID[key] != value}
    write_atomic(record, json.dumps(said, indent=1).encode() + b"\n")
    for folder in ("films", "masks"):
        (output / folder).mkdir(exist_ok=True)


def _compare(record: Path, told: dict[str, Any]) -> None:
    try:
        known = UNSAID | json.loads(record.read_text())
        keys = [key for key in told if known.get(key) != told[key]]
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"{record}: not readable as JSON; delete the folder or give another output") from None
    if keys:
        key = keys[0]
        raise ConfigError(
            f"{key}: {record.parent} was made with {key}={json.dumps(known.get(key))}, not {json.dumps(told[key])}; "
            "give another output, or delete the folder"
        )


def _labels(settings: Films, films: list[FilmPlan]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "start", "stop", *settings.factors, "group", "split", "truth"))
    for film in films:
        for shot in film.shots:
            labels = [shot.labels[name] for name in settings.factors]
            where = (f"films/{film.name}.mp4", shot.start, shot.stop)
            writer.writerow([*where, *labels, film.name, film.split, f"masks/{film.name}"])
    return text.getvalue()


def _complete(output: Path, film: FilmPlan) -> bool:
    return _video(output, film).exists() and (output / "masks" / film.name).is_dir()


def _video(output: Path, film: FilmPlan) -> Path:
    return output / "films" / f"{film.name}.mp4"
