"""What the machines give: bandwidth of an all-reduce, speed of each device, and whether bf16 Conv3d is right and fast here."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.training.faults.checks import trainable
from fbm_dist.training.faults.site import FailedError, Row, Site

LARGEST_GRADIENT = {"cuda": 64 << 20, "cpu": 8 << 20}  # bytes of the all-reduce that is timed
SMALLEST_GRADIENT = 1 << 20  # less would time the latency, not the bandwidth
ROUNDS = 5
FIRST_LIMIT = 120.0  # seconds: connections are made in the first all-reduce
STRAGGLER = 1.5  # times the median of all devices
# bf16 keeps 8 bits: rounding to nearest errs by 2^-9 at most, and where a kernel sums the 27 taps in bf16 (torch's own on the CPU
# does) it rounds 27 times. The inputs are bf16 numbers, which fp32 and TF32 hold exactly. A broken kernel errs by 1 and more.
BOUND = 27 * 2.0**-9
SLOWER = 0.9  # fp32 seconds / bf16 seconds under which bf16 is called slower


class Shape(NamedTuple):
    """A 3x3x3 convolution with padding 1, on squares."""

    batch: int
    channels: int
    out: int
    frames: int
    side: int


@dataclass(frozen=True)
class Convolution:
    """bf16 autocast against fp32: largest error of each quantity, relative to its largest value; seconds of forward and backward."""

    shape: Shape
    errors: dict[str, float]
    fp32: float
    bf16: float


def all_reduce(site: Site) -> list[Row]:
    """Bus bandwidth of the gradients' all-reduce, the slowest rank, and what it costs a step."""
    world = site.world
    if world.size == 1:
        return [Row("all-reduce", "ok", "no all-reduce (one process)")]
    largest = LARGEST_GRADIENT[world.device.type]
    gradient = 4 * trainable(site.objective) if site.objective is not None else largest
    size = world.broadcast(max(SMALLEST_GRADIENT, min(gradient, largest)))  # unequal sizes would hang or crash
    advice = "check the network between the nodes (NCCL_DEBUG=INFO, NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME)"
    held: list[Tensor] = []  # by all ranks before any of them waits for the others
    site.everywhere(lambda: held.append(torch.ones(size // 4, device=world.device)), "free memory on the device")
    site.everywhere(lambda: first_all_reduce(held[0], world.size), advice)
    seconds = site.everywhere(lambda: time_all_reduce(held[0]), advice)
    rates = [bus_bandwidth(size, world.size, one) for one in seconds]
    slowest = min(range(world.size), key=rates.__getitem__)
    step = gradient * 2 * (world.size - 1) / world.size / (rates[slowest] * 1e9)
    numbers = {"gb_per_second_min": rates[slowest], "gb_per_second_median": statistics.median(rates)}
    numbers |= {"bytes": float(size), "slowest_rank": float(slowest), "seconds_per_step": step}
    figure = f"all-reduce {rates[slowest]:.2g} GB/s (slowest: {site.name(slowest)}), {step * 1e3:.2g} ms a step"
    return [Row("all-reduce", "ok", figure, "", numbers)]


def first_all_reduce(tensor: Tensor, world_size: int, limit: float = FIRST_LIMIT) -> None:
    """Sum ones over the ranks and see that the sum is right.

    Raises:
        ValueError: it took longer than `limit` seconds (a network that lets nothing through), or the sum is wrong.
    """
    deadline = time.monotonic() + limit
    tensor.fill_(1)
    work = dist.all_reduce(tensor, async_op=True)
    assert work is not None
    while not work.is_completed():
        if time.monotonic() > deadline:
            raise ValueError(f"the first all-reduce has not ended in {limit:.0f} s")
        time.sleep(0.001)
    work.wait()
    found = torch.unique(tensor).tolist()
    if found != [world_size]:
        raise ValueError(f"the all-reduce of ones over {world_size} ranks gave {found[:3]}")


def time_all_reduce(tensor: Tensor) -> float:
    """Seconds of one all-reduce of `tensor` (the median of a few)."""
    tensor.zero_()
    rounds = []
    for _ in range(ROUNDS):
        _wait(tensor.device)
        began = time.perf_counter()
        dist.all_reduce(tensor)
        _wait(tensor.device)
        rounds.append(time.perf_counter() - began)
    return statistics.median(rounds)


def bus_bandwidth(size: int, world_size: int, seconds: float) -> float:
    """GB/s that every link carries while `size` bytes are reduced: 2 (n - 1) / n * size / seconds, as nccl-tests count."""
    return 2 * (world_size - 1) / world_size * size / seconds / 1e9


def device_speed(site: Site) -> list[Row]:
    """One product of matrices on every device: stragglers by name."""
    seconds = site.everywhere(lambda: time_product(site.world.device), "check the device (nvidia-smi)")
    usual = statistics.median_low(seconds)  # the lower one: of two ranks, the slow one is seen
    numbers = {"seconds_median": usual, "seconds_max": max(seconds)}
    slow = [rank for rank, one in enumerate(seconds) if one > STRAGGLER * usual]
    if not slow:
        return [
            Row(
                "device speed",
                "ok",
                f"no stragglers (slowest: {max(seconds) / usual:.2g} times the median)",
                "",
                numbers,
            )
        ]
    text = ", ".join(f"{site.name(rank)} takes {seconds[rank] / usual:.1f} times the median" for rank in slow[:5])
    more = f" and {len(slow) - 5} more" if len(slow) > 5 else ""
    advice = "all ranks wait for the slowest: look for other processes, power limits, heat (nvidia-smi -q -d CLOCK)"
    return [Row("device speed", "warning", f"stragglers: {text}{more}", advice, numbers)]


def time_product(device: torch.device) -> float:
    """Seconds of one fixed product of matrices: the best of thirty, which other processes disturb least."""
    gpu = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if gpu else (384, torch.float32)
    matrix = torch.full((side, side), 1e-3, device=device, dtype=dtype)
    rounds = []
    for _ in range(30):
        _wait(device)
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        _wait(device)
        rounds.append(time.perf_counter() - began)
    return min(rounds)


def convolution(site: Site) -> list[Row]:
    """bf16 Conv3d on every device: right numbers, and not slower than fp32. What is wrong is an error only where bf16 is used."""
    used = site.run.training.precision == "bf16"
    training, clip, device = site.run.training, site.run.data.clip, site.world.device
    advice = "use training.precision=fp32, or other versions of torch and cuDNN" if used else "stay with fp32"
    try:
        told = site.everywhere(
            lambda: measure(convolution_shapes(device, training.micro_batch, clip.frames, clip.size), device, used)
        )
    except FailedError as failed:
        return [Row("bf16 Conv3d", "error" if used else "warning", f"bf16 Conv3d fails: {failed}", advice)]
    every = [
        (one.errors[name], name, one.shape, rank)
        for rank, ones in enumerate(told)
        for one in ones
        for name in one.errors
    ]
    error, name, shape, rank = max(every, key=lambda found: found[0])
    ratios = [sum(one.fp32 for one in ones) / sum(one.bf16 for one in ones) for ones in told]
    numbers = {"largest_error": error, "bound": BOUND, "speed_over_fp32": min(ratios)}
    if error > BOUND:
        text = f"bf16 Conv3d is wrong on {site.name(rank)}: {name} errs by {error:.2g}, bound {BOUND:.2g}, {shape}"
        return [Row("bf16 Conv3d", "error" if used else "warning", text, advice, numbers)]
    figure = f"bf16 Conv3d right (error {error:.2g}), {min(ratios):.2g} times fp32's speed"
    if used and min(ratios) < SLOWER:
        slow = "bf16 costs time here: use training.precision=fp32, or other versions of torch and cuDNN"
        return [Row("bf16 Conv3d", "warning", f"{figure} on {site.name(ratios.index(min(ratios)))}", slow, numbers)]
    return [Row("bf16 Conv3d", "ok", figure, "", numbers)]


def convolution_shapes(device: torch.device, batch: int, frames: int, side: int) -> list[Shape]:
    """Convolutions of an FBM-like encoder from its first to its last, two frames among them; tiny on a CPU.

    On a GPU with the run's own batch, as far as a quarter of the free memory holds it: cuDNN 9.10.2 was wrong only in tensors of
    more than 2^31 bytes (pytorch #163539).
    """
    if device.type != "cuda":
        return [Shape(1, 3, 8, 4, 16), Shape(1, 8, 16, 2, 16), Shape(1, 16, 16, 2, 4)]
    found = []
    free, _ = torch.cuda.mem_get_info(device)
    for channels, out, time_share, side_share in ((3, 64, 1, 1), (64, 128, 1, 2), (256, 256, 4, 4), (512, 512, 8, 8)):
        t, s = max(2, frames // time_share), max(4, side // side_share)
        each = 12 * (channels + out) * t * s * s  # input, output and gradients, in both precisions
        found.append(Shape(max(1, min(batch, free // 4 // each)), channels, out, t, s))
    return found


def measure(shapes: list[Shape], device: torch.device, used: bool) -> list[Convolution]:
    """Both precisions, each under the settings that `distributed.start` would choose for it; `used`: bf16's are in force now."""
    found = []
    try:
        for shape in shapes:
            with _onednn(device, True):
                exact, fp32 = _differentiate(shape, device, False)
            with _onednn(device, None if used else False):
                rounded, bf16 = _differentiate(shape, device, True)
            found.append(Convolution(shape, {n: _error(rounded[n], exact[n]) for n in exact}, fp32, bf16))
            del exact, rounded
    finally:
        if device.type == "cuda":  # leave memory, and the run's own statistics of it, as they were
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    return found


def _differentiate(shape: Shape, device: torch.device, bf16: bool) -> tuple[dict[str, Tensor], float]:
    """Output and gradients of one convolution, and the seconds of the best of three rounds."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, device=device, generator=generator).bfloat16().float()

    batch, channels, out, frames, side = shape
    video = normal(batch, channels, frames, side, side).requires_grad_()
    weight = normal(out, channels, 3, 3, 3).requires_grad_()
    bias = normal(out).requires_grad_()  # its gradient, a sum over everything, has an error of another size
    above = normal(batch, out, frames, side, side)
    rounds = []
    for _ in range(4):  # the first chooses the kernels
        video.grad = weight.grad = bias.grad = None
        _wait(device)
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            output = F.conv3d(video, weight, bias, padding=1)
        output.backward(above.to(output.dtype))
        _wait(device)
        rounds.append(time.perf_counter() - began)
    assert video.grad is not None
    assert weight.grad is not None
    found = {"output": output.detach(), "input gradient": video.grad, "weight gradient": weight.grad}
    return found, min(rounds[1:])


def _error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where something is not finite."""
    error = float((found.float() - exact).abs().max() / exact.abs().max())
    return error if math.isfinite(error) else math.inf


@contextmanager
def _onednn(device: torch.device, enabled: bool | None) -> Iterator[None]:
    """Turn oneDNN on or off on a CPU; None leaves it as it is."""
    if device.type != "cpu" or enabled is None:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it also sets TF32 for Intel GPUs, and says that there are none
        before = torch.backends.mkldnn.set_flags(enabled)
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            torch.backends.mkldnn.set_flags(*before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
