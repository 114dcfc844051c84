"""prepare: its speed against the same PyAV calls in a bare loop, what `plan` predicts, and the bytes after kill -9 at random moments.

python benchmarks/prepare.py                      # synthetic films of 320x240
python benchmarks/prepare.py --films MY_VIDEOS
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = ("masks.kind=none", "shots.detector=adaptive")


def main() -> None:
    """Measure, print a table, and the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="folder of films; default: synthetic ones")
    parser.add_argument("--rounds", type=int, default=2, help="of speed: each runs both, the median counts")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        films = given.films or synthetic(work / "films")
        figures = speed(films, work, given.rounds)
        figures |= forecast(films, work, figures.pop("wall_all_workers"))
        figures |= kills(few(films, work / "few"), work, given.kills)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))


def synthetic(output: Path, films: int = 24, frames: int = 1000) -> Path:
    """Films of 320x240 in H.264: textures that move under a noisy square, a cut every 40 to 400 frames."""
    import av
    import numpy as np

    output.mkdir(parents=True)
    for number in range(films):
        rng = np.random.default_rng(number)
        with av.open(str(output / f"{number:03d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            done = 0
            while done < frames:
                texture = np.kron(rng.integers(20, 230, (30, 100, 3)), np.ones((8, 8, 1))).astype(np.uint8)
                for i in range(min(int(rng.integers(40, 400)), frames - done)):
                    image = texture[:, i : i + 320].copy()
                    image[90:150, (2 * i) % 260 :][:, :60] = rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
                    done += 1
            container.mux(stream.encode())
    return output


def speed(films: Path, work: Path, rounds: int) -> dict[str, float]:
    """Seconds of CPU and of the clock for one process: prepare, and the bare loop; then prepare with all processes."""
    bare, whole = [], []
    for number in range(rounds):
        bare.append(timed([sys.executable, __file__, "--bare-loop", str(films)]))
        whole.append(timed(prepare(films, work / f"speed-{number}", "workers=1")))
    everyone = timed(prepare(films, work / "everyone"))
    count = len((work / "everyone/films.jsonl").read_text().splitlines())
    ratios = [[b[kind] / w[kind] for b, w in zip(bare, whole, strict=True)] for kind in (0, 1)]
    return {
        "films_per_hour": round(count / everyone[0] * 3600),
        "transcode_vs_bare_loop": round(statistics.median(ratios[1]), 3),
        "transcode_vs_bare_loop_by_clock": round(statistics.median(ratios[0]), 3),
        "bare_cpu_seconds": round(statistics.median(b[1] for b in bare), 2),
        "prepare_cpu_seconds": round(statistics.median(w[1] for w in whole), 2),
        "wall_all_workers": everyone[0],
    }


def forecast(films: Path, work: Path, wall: float) -> dict[str, float]:
    """What `plan` predicts from a third of the films, over what a run takes."""
    count = len((work / "everyone/films.jsonl").read_text().splitlines())
    options = [f"input={films}", f"sample={max(2, count // 3)}", *OPTIONS]
    told = subprocess.run(
        [sys.executable, "-m", "data_tools", "plan", *options], cwd=ROOT, check=True, capture_output=True, text=True
    )
    predicted = json.loads(told.stdout.splitlines()[-1])
    made = json.loads((work / "everyone/dataset.json").read_text())["snapshots"][-1]
    return {
        "plan_hours_vs_run": round(predicted["hours"] * 3600 / wall, 3),
        "plan_bytes_vs_run": round(predicted["bytes"] / made["bytes"], 3),
        "plan_frames_vs_run": round(predicted["frames"] / made["frames"], 3),
    }


def few(films: Path, output: Path, most: int = 8) -> Path:
    """Some of the films: many runs of them do not take all day."""
    output.mkdir()
    for path in sorted(p for p in films.rglob("*") if p.is_file())[:most]:
        shutil.copy2(path, output)
    return output


def kills(films: Path, work: Path, number: int) -> dict[str, object]:
    """kill -9 to a whole run at random moments until it has been killed `number` times; then to its end."""
    length = timed(prepare(films, work / "whole"))[0]
    wanted = contents(work / "whole")
    moments = random.Random(0)
    killed, identical, lost, attempts = 0, True, 0, 0
    while killed < number:
        output, attempts, staged = work / f"killed-{attempts}", attempts + 1, 0
        for _ in range(4):
            process = subprocess.Popen(
                prepare(films, output, f"workers={moments.choice((1, 2))}"),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(moments.uniform(0.3, 0.6 * length))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            now = len(list((output / "staging/films").rglob("*.clip")))
            lost += max(0, staged - now) if not list((output / "shards").glob("*")) else 0
            staged = now
        subprocess.run(prepare(films, output), cwd=ROOT, check=True, capture_output=True)
        identical = identical and contents(output) == wanted
        shutil.rmtree(output)
    return {"kills": killed, "identical": identical, "staged_clips_lost": lost}


def prepare(films: Path, output: Path, *more: str) -> list[str]:
    """The command."""
    return [sys.executable, "-m", "data_tools", "prepare", f"input={films}", f"output={output}", *OPTIONS, *more]


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a data set."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of CPU, children included."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare_loop(films: Path) -> None:
    """Decode every film at the size of its clips and encode runs of 64 frames, in memory: no cuts, no files, no checks."""
    import av
    import numpy as np
    from av.video.reformatter import Interpolation, VideoReformatter

    from data_tools.config import load
    from data_tools.frames import stored_size
    from data_tools.schema import Prepare
    from data_tools.sources.films import find
    from data_tools.videos import encode

    settings = load(Prepare, None, [f"input={films}", "output=unused", *OPTIONS])
    for film in (found for found in find(films).films if found.kind == "video"):
        with av.open(str(film.path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_type, convert = "NONE", VideoReformatter()
            height, width = stored_size(stream.height, stream.width, settings)
            frames = (
                convert.reformat(
                    frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
                ).to_ndarray()
                for frame in container.decode(stream)
            )
            while piece := list(islice(frames, settings.max_frames)):
                encode(np.stack(piece), (25, 1), settings.codec, settings.gop)


if __name__ == "__main__":
    if "--bare-loop" in sys.argv:
        bare_loop(Path(sys.argv[-1]))
    else:
        main()
