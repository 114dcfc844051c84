"""What preflight looks at around the training: config, versions, devices, run folder, data, disk and shared memory, on every rank."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal

from fbm_dist.data.machine import SHARED, handed_over, readers_of
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run
from fbm_dist.training.engines.turn import player_module
from fbm_dist.training.faults.site import Row, Site

PACKAGES = ("torch", "deepspeed", "numpy", "nvidia-dali-cuda130", "mlflow")
ROOT = Path(__file__).parents[3]
PATIENCE = 5.0  # seconds that a network file system may take to show what another node wrote
SPARE_TEMPORARY = 1e9  # the index's cache and what libraries unpack
BUSY = 0.2  # share of a GPU's memory in use before the run begins: another process is on it


def config(site: Site) -> list[Row]:
    """Every rank was started with the same config; tracking is rank 0's alone."""
    told = site.everywhere(lambda: _leaves(site.run.model_dump(mode="json", exclude={"tracking"}), ""))
    found = site.disagreement(told)
    if found:
        advice = "start all ranks by one command, with one config file"
        return [Row("config", "error", f"config differs: {found}", advice)]
    return [Row("config", "ok", "config equal")]


def versions(site: Site) -> list[Row]:
    """Python, packages, this project's own code and the CUDA stack are the same on all ranks."""
    told = site.everywhere(_versions)
    drivers = [{"driver": one.pop("driver"), "GPU": one.pop("GPU")} for one in told]
    found, mixed = site.disagreement(told), site.disagreement(drivers)
    advice = "use one environment and one checkout for all nodes: a shared folder, or the same container"
    if found:
        return [Row("versions", "error", f"versions differ: {found}", advice)]
    if mixed and site.run.data.decode != "auto":  # which lets them agree before the first step
        slowest = "all ranks wait for the slowest; use nodes of one kind"
        return [Row("versions", "warning", f"versions equal, but {mixed}", slowest)]
    return [Row("versions", "ok", "versions equal")]


def devices(site: Site) -> list[Row]:
    """Every rank has a GPU of its own, and nobody else is on it. Nothing to find on CPUs."""
    told = site.everywhere(lambda: _device(site.world.device))
    owners: dict[tuple[str, str], int] = {}
    for rank, (name, _) in enumerate(told):
        other = owners.setdefault((site.hosts[rank], name), rank) if name else rank
        if other != rank:
            text = f"ranks {other} and {rank} share the GPU {name} of {site.hosts[rank]}"
            return [Row("devices", "error", text, "start at most one process per GPU (--num_gpus, slots= or --ntasks)")]
    busy = [rank for rank, (_, used) in enumerate(told) if used > BUSY]
    if busy:
        text = f"{told[busy[0]][1]:.0%} of the GPU memory of {site.name(busy[0])} is in use"
        return [Row("devices", "warning", text, "end what an earlier run left there (nvidia-smi names it)")]
    return [Row("devices", "ok", f"one {site.world.device.type} device for each rank")]


def run_folder(site: Site) -> list[Row]:
    """All ranks see the same run folder and may write to it. The folder is left as it was."""
    folder, world = site.run.run.folder, site.world
    token = world.broadcast(uuid.uuid4().hex)
    path = folder / f".preflight-{token}"
    made: list[Path] = []
    advice = "run.folder must be writable, on a file system that all nodes share"

    def begin() -> None:
        if world.first:
            made.extend(p for p in (folder, *folder.parents) if not p.exists())
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(token)

    def look() -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > deadline:
                raise ValueError(f"{folder} is not the folder that rank 0 sees")
            time.sleep(0.05)
        if path.read_text() != token:
            raise ValueError(f"{path}: not what rank 0 wrote")
        own = folder / f"{path.name}-{world.rank}"
        with own.open("w") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        own.unlink()

    try:
        site.everywhere(begin, advice)
        site.everywhere(look, advice)
    finally:
        if world.first:
            _remove(path, made)
    return [Row("run folder", "ok", "seen and writable by all ranks")]


def data(site: Site) -> list[Row]:
    """Every rank opens the data, sees the same clips, and gets one of them decoded."""
    told = site.everywhere(lambda: _first_clip(site))
    found = site.disagreement([{"the data's digest": one["digest"]} for one in told])
    if found:
        return [Row("data", "error", found, "data.path must be the same data set on all nodes")]
    seconds = max(one["seconds"] for one in told)
    figure = f"data ok ({told[0]['num_clips']:,} clips, the first after {seconds:.1f} s)"
    numbers = {"num_clips": float(told[0]["num_clips"]), "seconds_to_first_clip": seconds}
    mixed = site.disagreement([{"the decoder": one["decoder"]} for one in told])
    if mixed and site.run.data.decode != "auto":  # which lets them agree before the first step
        advice = "all ranks wait for the slowest; see data.decode"
        return [Row("data", "warning", f"{figure}, but {mixed}", advice, numbers)]
    return [Row("data", "ok", figure, "", numbers)]


def disk(site: Site) -> list[Row]:
    """There is room for the checkpoints that will stand beside each other, and for temporary files."""
    folder = site.run.run.folder
    told = site.everywhere(lambda: (_free(folder), _missing_bytes(site)))
    free, needed = min(free for free, _ in told), told[0][1]
    temporary = site.everywhere(lambda: _free(Path(tempfile.gettempdir())))
    figure = f"disk {decimal(free)} free ({decimal(needed)} needed)"
    numbers = {"free_bytes": float(free), "needed_bytes": float(needed)}
    rows = [Row("disk", "ok", figure, "", numbers)]
    if free < needed:
        advice = "make room at run.folder, or lower training.keep_checkpoints"
        rows = [Row("disk", "error", figure, advice, numbers)]
    tightest = min(range(site.world.size), key=temporary.__getitem__)
    if temporary[tightest] < SPARE_TEMPORARY:
        text = f"{decimal(temporary[tightest])} free in {tempfile.gettempdir()} of {site.name(tightest)}"
        rows.append(Row("temporary files", "warning", text, "make room there, or set TMPDIR"))
    return rows


def shared_memory(site: Site) -> list[Row]:
    """The reader processes hand clips over in /dev/shm: where that is too small (containers: 64 MB) they die by SIGBUS."""
    told = site.everywhere(lambda: (_free(SHARED), _readers_bytes(site)))
    short = [rank for rank, (free, needed) in enumerate(told) if free < needed]
    free, needed = told[short[0]] if short else min(told)
    numbers = {"free_bytes": float(free), "needed_bytes": float(needed)}
    if short:
        text = f"/dev/shm of {site.name(short[0])} has {decimal(free)} free, its readers need about {decimal(needed)}"
        advice = (
            "give the container more (docker run --shm-size=8g), or lower data.prefetch, data.workers or micro_batch"
        )
        return [Row("shared memory", "warning", text, advice, numbers)]
    return [Row("shared memory", "ok", f"{decimal(free)} free in /dev/shm ({decimal(needed)} needed)", "", numbers)]


def checkpoints_bytes(run: Run, objective: Objective) -> int:
    """Bytes of all checkpoints that stand beside each other: the newest, the best, and the one being written."""
    together = run.training.keep_checkpoints + 2
    each = 4 * sum(tensor.numel() for tensor in objective.state_dict().values())
    for name in objective.players:
        player = run.players.get(name)
        optimizer = (player.optimizer if player else None) or run.optimizer
        elements = trainable(player_module(objective, name))
        each += elements * (4 if optimizer.kind == "sgd" else 8)
        each += elements * 4 if run.training.ema_decay is not None else 0
    return together * each


def _missing_bytes(site: Site) -> int:
    """What the checkpoints will take, less what they have taken already."""
    if site.objective is None:
        return 0
    files = [p for p in (site.run.run.folder / "checkpoints").rglob("*") if p.is_file()]
    return max(0, checkpoints_bytes(site.run, site.objective) - sum(p.stat().st_size for p in files))


def trainable(module: torch.nn.Module) -> int:
    """Elements that gradients are computed for."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _leaves(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for k, v in value.items() for key, leaf in _leaves(v, f"{name}.{k}" if name else k).items()}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "this project's code": _code()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found |= {"torch": torch.__version__, "CUDA": torch.version.cuda, "driver": None, "GPU": None}
    driver = Path("/proc/driver/nvidia/version")
    if torch.cuda.is_available():
        found["cuDNN"] = str(torch.backends.cudnn.version())
        found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
        found["driver"] = driver.read_text().partition("\n")[0].strip() if driver.exists() else None
        found["GPU"] = torch.cuda.get_device_name()
    return found


def _code() -> str:
    """Hash of the sources themselves: sees uncommitted changes too, and nodes need no git."""
    digest = hashlib.sha256()
    for path in sorted(p for top in ("fbm_dist", "data_tools") for p in (ROOT / top).rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _device(device: torch.device) -> tuple[str, float]:
    """(identity of the GPU, share of its memory in use); empty for a CPU."""
    if device.type != "cuda":
        return "", 0.0
    free, total = torch.cuda.mem_get_info(device)
    return str(torch.cuda.get_device_properties(device).uuid), 1 - free / total


def _first_clip(site: Site) -> dict[str, Any]:
    run, world, began = site.run, site.world, time.perf_counter()
    stream = site.open_stream(
        run.data.model_copy(update={"prefetch": 1}),
        seed=run.run.seed,
        global_batch=world.size
        * run.training.micro_batch,  # as large as the run's: what is measured here serves it too
        micro_batch=run.training.micro_batch,
        rank=world.rank,
        world_size=world.size,
        ranks_here=world.local_size,
        device=world.device,
        consumed=0,
    )
    try:
        clip = next(iter(stream))
        if not bool(torch.isfinite(clip.video).all()):
            raise ValueError(f"clip {clip.key[0]} has values that are not finite")
        seconds = time.perf_counter() - began
        return {"digest": stream.digest, "num_clips": stream.num_clips, "decoder": stream.decoder, "seconds": seconds}
    finally:
        stream.close()


def _readers_bytes(site: Site) -> int:
    """What the readers of this node's ranks hold in shared memory at a time, where they decode: it needs the most."""
    data, batch, ranks = site.run.data, site.run.training.micro_batch, site.world.local_size
    readers = readers_of(data, "pyav", batch, site.world.device.type, ranks)
    return ranks * handed_over(data.clip, batch, readers.prefetch)


def _free(folder: Path) -> int:
    """Bytes free where `folder` is, or will be."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def _remove(path: Path, made: Sequence[Path]) -> None:
    """Undo what the check made: a run that is refused leaves nothing behind."""
    with suppress(OSError):  # a folder that is not empty is in use by now, or was never made
        path.unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
