"""All that only a GPU can tell, in one script: NVDEC, bf16 Conv3d, motion masks, full-size training, data wait. `python -m benchmarks.gpu`.

Without a GPU the same lines run small, on the CPU (a rehearsal); `--quick` makes them small on a GPU too. Each part that fails says
why and leaves the others alone. Prints tables, writes `--output` after each part, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import platform
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pynvml
import torch
import torch.distributed as dist
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from rich.console import Console
from rich.table import Table
from skimage import data as photographs
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_masks
from fbm_dist.clip import Clip
from fbm_dist.config import load
from fbm_dist.data.decoding.frames import FrameReader, Stored
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.schema import Run
from fbm_dist.training.faults import hardware
from tests.datasets import write_dataset

ENCODERS = {"h264": "libx264", "vp9": "libvpx-vp9", "hevc": "libx265"}
RESULTS = Path(__file__).parent / "results"
DECODING = 2.0  # seconds that a decoder is watched for
PEAK_FLOPS = 790e12  # bf16 matrix product reached on an H200; the share of it is what the table calls MFU
Part = Callable[["Machine"], dict[str, Any]]


class Machine:
    """The device, and how large the runs on it may be."""

    def __init__(self, quick: bool) -> None:
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.name = torch.cuda.get_device_name() if self.gpu else platform.processor() or "cpu"
        self.small = quick or not self.gpu

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.gpu:
            torch.cuda.synchronize()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    arguments.add_argument("--quick", action="store_true", help="small sizes, as on a CPU")
    arguments.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    arguments.add_argument(
        "--output", type=Path, help="JSON file; its folder is made. On a GPU: benchmarks/results/gpu-DATE.json"
    )
    chosen = arguments.parse_args()
    machine = Machine(chosen.quick)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    figures: dict[str, Any] = {"date": date.today().isoformat(), "commit": commit or None, "device": machine.name}
    figures |= {"torch": torch.__version__, "small": machine.small}
    output = chosen.output or (RESULTS / f"gpu-{figures['date']}.json" if machine.gpu else None)
    for name in chosen.parts.split(","):
        try:
            figures[name] = PARTS[name](machine)
        except Exception as error:  # one part must not cost the others their figures
            traceback.print_exc()
            figures[name] = {"error": " ".join(str(error).split())[:500]}
        if output:  # after each part: a lease of a GPU may end at any time
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def nvdec(machine: Machine) -> dict[str, Any]:
    """Clips of 16 frames a second by codec, size, threads: NVDEC (mixed), DALI on the CPU (VP9 alone), PyAV as the readers use it.

    `engines`: the mean utilisation of the GPU's decoders while they were at it, as the driver tells it.
    """
    table = Table(
        "codec", "size", "decoder", "threads", "clips/s", "engines", title="decoding 16 of 48 frames to 128x128"
    )
    found: dict[str, Any] = {}
    for codec in ENCODERS:
        for side in (128,) if machine.small else (128, 256):
            video = _film(codec, side)
            for kind in ("mixed",) * machine.gpu + ("cpu",) * (codec == "vp9") + ("pyav",) * (codec != "hevc"):
                for threads in (1, 2) if machine.small else (1, 8):
                    with _Engines(machine.gpu and kind == "mixed") as engines:
                        rate = (
                            _pyav(video, codec, side, threads)
                            if kind == "pyav"
                            else _decode(machine, video, kind, threads)
                        )
                    found[f"{codec}-{side}-{kind}-{threads}"] = {"clips_per_second": rate, "engines": engines.mean}
                    used = "" if engines.mean is None else f"{engines.mean:.0%}"
                    table.add_row(codec, str(side), kind, str(threads), str(rate), used)
    Console().print(table)
    return found


class _Engines:
    """Utilisation of the GPU's video decoders, asked for ten times a second."""

    def __init__(self, on: bool) -> None:
        self.mean: float | None = None
        self._on = on
        self._seen: list[float] = []
        self._stop = threading.Event()

    def __enter__(self) -> _Engines:
        if self._on:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._on:
            self._stop.set()
            self._thread.join()
            self.mean = sum(self._seen) / len(self._seen) if self._seen else None

    def _look(self) -> None:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._stop.wait(0.1):
            self._seen.append(pynvml.nvmlDeviceGetDecoderUtilization(handle)[0] / 100)


def _pyav(video: bytes, codec: str, side: int, processes: int) -> float:
    """By as many processes as there are threads for the others."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_read, [(video, codec, side, 1)] * processes))  # they have started
        began = time.perf_counter()
        list(pool.map(_read, [(video, codec, side, 40)] * processes))
        return round(40 * processes / (time.perf_counter() - began), 1)


def _read(work: tuple[bytes, str, int, int]) -> None:
    video, codec, side, times = work
    reader, picture = FrameReader(), np.empty((16, 3, 128, 128), np.uint8)
    for _ in range(times):
        reader.read(video, range(8, 24), Stored(codec, side, side, (25, 1)), list(picture))


def _film(codec: str, side: int) -> bytes:
    """48 frames of a pan over a photograph, as mp4."""
    picture = photographs.astronaut()
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(ENCODERS[codec], rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.gop_size = 32
        for t in range(48):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[t : t + side, 2 * t : 2 * t + side]), "rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def _decode(machine: Machine, video: bytes, kind: str, threads: int, batch: int = 32) -> float | str:
    data = [np.frombuffer(video, np.uint8)] * batch
    pipe = Pipeline(batch_size=batch, num_threads=threads, device_id=0 if machine.gpu else None, prefetch_queue_depth=2)
    try:
        with pipe:
            encoded = fn.external_source(lambda: data)
            frames = fn.decoders.video(encoded, device=kind, start_frame=8, sequence_length=16)
            pipe.set_outputs(fn.resize(frames, size=[128, 128]))
        pipe.build()
        pipe.run()
        rounds, start = 0, time.perf_counter()
        while rounds < 2 or (not machine.small and time.perf_counter() - start < DECODING):
            pipe.run()
            rounds += 1
        machine.wait()
        return round(batch * rounds / (time.perf_counter() - start), 1)
    except RuntimeError as error:
        return f"fails: {' '.join(str(error).split())[:120]}"


def preflight(machine: Machine) -> dict[str, Any]:
    """What a run's preflight measures: bf16 Conv3d against fp32 by shape, one product of matrices, an all-reduce."""
    if machine.gpu:
        torch.backends.cudnn.benchmark = True
    shapes = hardware.convolution_shapes(machine.device, 4 if machine.small else 40, 16, 64 if machine.small else 128)
    title = f"bf16 Conv3d, forward and backward; errors above {hardware.BOUND:.2g} are wrong"
    table = Table("batch, channels, out, frames, side", "output", "input grad", "weight grad", "x fp32", title=title)
    found: dict[str, Any] = {"conv3d_bound": hardware.BOUND, "all_reduce": _all_reduce(machine.gpu)}
    for one in hardware.measure(shapes, machine.device, used=False):
        name, speed = ", ".join(map(str, one.shape)), one.fp32 / one.bf16
        errors = {quantity: e if math.isfinite(e) else None for quantity, e in one.errors.items()}
        found[f"conv3d {name}"] = {**errors, "fp32_ms": one.fp32 * 1e3, "bf16_ms": one.bf16 * 1e3}
        table.add_row(name, *(f"{error:.2g}" for error in one.errors.values()), f"{speed:.2f}")
    found["product_ms"] = hardware.time_product(machine.device) * 1e3
    Console().print(table)
    Console().print(found["all_reduce"])
    return found


def _all_reduce(gpu: bool) -> dict[str, Any]:
    """Bus bandwidth between all GPUs of this machine; with fewer than two of them, between two processes on the CPU."""
    count = torch.cuda.device_count() if gpu else 0
    backend, size = ("nccl", 64 << 20) if count > 1 else ("gloo", 8 << 20)
    count = max(2, count)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_reduce, (backend, count, size, folder), nprocs=count)
        slowest = max(float(path.read_text()) for path in Path(folder).glob("seconds-*"))
    rate = hardware.bus_bandwidth(size, count, slowest)
    return {"backend": backend, "processes": count, "bytes": size, "gb_per_second": round(rate, 2)}


def _reduce(rank: int, backend: str, count: int, size: int, folder: str) -> None:
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=count)
    tensor = torch.ones(size // 4, device=device)
    hardware.first_all_reduce(tensor, count)
    (Path(folder) / f"seconds-{rank}").write_text(str(hardware.time_all_reduce(tensor)))
    dist.destroy_process_group()


def masks(machine: Machine) -> dict[str, Any]:
    """Motion masks in tensors beside the CPU's: frames a second with DIS and with the GPU's optical-flow engine, agreement, memory."""
    return gpu_masks.speed(machine.device, 20 if machine.small else gpu_masks.FRAMES)


def training(machine: Machine) -> dict[str, Any]:
    """Step time, MFU, memory and numbers of the full-size FBM (176.8M) in fp32 and bf16 autocast."""
    config = FBMConfig(width=0.125, size=64) if machine.small else FBMConfig()
    batch = 4 if machine.small else 40
    clip = _clip(batch, config, machine.device)
    torch.manual_seed(0)
    objective = config.build().to(machine.device)
    with FlopCounterMode(display=False) as counter:
        objective("model", clip).total.backward()
    flops = counter.get_total_flops()
    start_weights = {name: value.clone() for name, value in objective.state_dict().items()}
    table = Table("precision", "ms/step", "clips/s", "share of peak", "GiB", "first loss", title=f"FBM, batch {batch}")
    found: dict[str, Any] = {"flops_per_clip": flops / batch, "batch": batch}
    for precision in ("fp32", "bf16"):
        objective.load_state_dict(start_weights)
        row = _steps(machine, objective, clip, precision == "bf16")
        row["mfu"] = round(flops / (row["ms"] / 1e3) / PEAK_FLOPS, 4)
        found[precision] = row
        shown = (f"{row['ms']:.1f}", f"{batch / row['ms'] * 1e3:.1f}", f"{row['mfu']:.1%}", f"{row['gib']:.1f}")
        table.add_row(precision, *shown, f"{row['loss']:.5f}")
    found["bf16_relative_error"] = abs(found["bf16"]["loss"] / found["fp32"]["loss"] - 1)
    Console().print(table)
    return found


def _clip(batch: int, config: FBMConfig, device: torch.device) -> Clip:
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(batch, 3, config.frames, config.size, config.size, generator=generator) * 2 - 1
    mask = torch.zeros(batch, 1, config.frames, config.size, config.size)
    mask[..., config.size // 4 : config.size // 2, config.size // 4 : config.size // 2] = 1
    frames = torch.arange(config.frames).repeat(batch, 1)
    return Clip(video, mask, None, frames, torch.arange(batch), tuple(map(str, range(batch))), {}).to(device)


def _steps(machine: Machine, objective: torch.nn.Module, clip: Clip, bf16: bool) -> dict[str, float]:
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4, weight_decay=1e-3)
    if machine.gpu:
        torch.backends.cudnn.benchmark = True
        torch.cuda.reset_peak_memory_stats()

    def step() -> float:
        with torch.autocast(machine.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = objective("model", clip).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    first = step()
    for _ in range(1 if machine.small else 4):
        step()
    machine.wait()
    rounds, start = 2 if machine.small else 20, time.perf_counter()
    for _ in range(rounds):
        step()
    machine.wait()
    seconds = (time.perf_counter() - start) / rounds
    gib = torch.cuda.max_memory_allocated() / 2**30 if machine.gpu else 0.0
    return {"ms": seconds * 1e3, "gib": gib, "loss": first}


def pretraining(machine: Machine) -> dict[str, Any]:
    """The real door on a real data set: clips/s and the share of time that training waits for data, by codec and decoder."""
    from fbm_dist.run import pretrain

    table = Table("codec", "decode", "clips/s", "data wait", title="run.pretrain, bf16, ZeRO-1")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for codec in ("vp9", "h264"):
            shards = write_dataset(Path(folder) / codec, clips=24 if machine.small else 240, frames=32, codec=codec)
            for decode in ("auto", "pyav"):
                lines: list[dict[str, float]] = []
                run = load(Run, None, _overrides(machine, shards, Path(folder) / f"{codec}-{decode}", decode))
                pretrain(run, lambda line, lines=lines: lines.append(dict(line)))
                rate, waited = lines[-1]["clips_per_second"], lines[-1]["data_wait"]
                found[f"{codec}-{decode}"] = {"clips_per_second": rate, "data_wait": waited, "loss": lines[-1]["loss"]}
                table.add_row(codec, decode, f"{rate:.1f}", f"{waited:.1%}")
    Console().print(table)
    return found


def _overrides(machine: Machine, shards: Path, folder: Path, decode: str) -> list[str]:
    batch, steps, width, size = (4, 4, 0.125, 64) if machine.small else (40, 60, 1.0, 128)
    return [
        f"data.path={shards}", f"run.folder={folder}", f"data.decode={decode}", f"data.clip.size={size}",
        "objective.family=fbm", f"objective.width={width}", f"objective.size={size}",
        f"training.steps={steps}", f"training.global_batch={batch}", f"training.micro_batch={batch}",
        f"training.log_every={steps // 2}", "training.precision=bf16", "training.picture_every=0",
        "tracking.mlflow=false",
    ]  # fmt: skip


PARTS: dict[str, Part] = {
    "nvdec": nvdec,
    "preflight": preflight,
    "masks": masks,
    "training": training,
    "pretraining": pretraining,
}

if __name__ == "__main__":
    main()
