"""BatchNorm over processes is one process' BatchNorm over the batch of all: outputs, gradients, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fbm_dist.training.engines.batchnorm import JointBatchNorm, synchronised
from tests.distributed import run_ranks
from tests.toys import Solo

CPU = torch.device("cpu")
CHANNELS, CLIPS, PASSES = 4, (3, 5), 3
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "3d": (lambda: nn.BatchNorm3d(CHANNELS), (2, 5, 3)),
    "2d": (lambda: nn.BatchNorm2d(CHANNELS, eps=0.1, momentum=0.3), (4, 3)),
    "1d": (lambda: nn.BatchNorm1d(CHANNELS), ()),
    "cumulative": (lambda: nn.BatchNorm1d(CHANNELS, momentum=None), (7,)),
    "without bias": (lambda: nn.BatchNorm1d(CHANNELS, bias=False), (7,)),
    "without scale": (lambda: nn.BatchNorm2d(CHANNELS, affine=False), (4, 3)),
    "without memory": (lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False), (4, 3)),
    "frozen": (lambda: nn.BatchNorm3d(CHANNELS).requires_grad_(False), (2, 5, 3)),
}


class Found(NamedTuple):
    """What some passes through a layer leave."""

    tensors: list[Tensor]  # of each pass, what was made and the gradient of what came in
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def layer_of(kind: str) -> nn.Module:
    layer = LAYERS[kind][0]()
    for parameter in layer.parameters():
        parameter.data = torch.linspace(0.5, 2, CHANNELS)
    return layer


def batches(kind: str, seed: int) -> list[Tensor]:
    """Of each rank; far from mean 0 and from each other."""
    generator = torch.Generator().manual_seed(seed)
    shape = (CHANNELS, *LAYERS[kind][1])
    return [3 + rank + (1 + rank) * torch.randn(clips, *shape, generator=generator) for rank, clips in enumerate(CLIPS)]


def passes(layer: nn.Module, chosen: Callable[[list[Tensor]], Tensor], kind: str, device: torch.device = CPU) -> Found:
    """Some passes forward and back, of channels that lie last in the second; the gradient is another one at each place."""
    tensors = []
    for number in range(PASSES):
        values, gradient = (chosen(batches(kind, 10 * number + part)).to(device) for part in range(2))
        if number == 1 and values.ndim > 3:
            last = torch.channels_last if values.ndim == 4 else torch.channels_last_3d
            values = values.contiguous(memory_format=last)
        values.requires_grad_()
        made = layer(values)
        made.backward(gradient)
        tensors += [made.detach().cpu(), grad_of(values)]
    return Found(tensors, *left(layer))


def left(layer: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    gradients = {name: grad_of(p) for name, p in layer.named_parameters() if p.requires_grad}
    return gradients, {name: value.cpu() for name, value in layer.state_dict().items()}


def grad_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad.cpu()


def on_ranks(rank: int, device: torch.device = CPU) -> list[Found]:
    """Of every kind of layer."""
    return [
        passes(synchronised(layer_of(kind).to(device), device), lambda every: every[rank], kind, device)
        for kind in LAYERS
    ]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def one_batch(ranks: list[list[Found]]) -> None:
    """Together two ranks have what one process makes of the whole batch, and both remember the same, to the last bit."""
    for kind, first, second in zip(LAYERS, *ranks, strict=True):
        whole = passes(layer_of(kind), torch.cat, kind)
        close([torch.cat(pair) for pair in zip(first.tensors, second.tensors, strict=True)], whole.tensors)
        assert first.gradients.keys() == whole.gradients.keys()
        close({name: first.gradients[name] + second.gradients[name] for name in first.gradients}, whole.gradients)
        assert list(first.state) == list(whole.state)
        close(first.state, whole.state)
        torch.testing.assert_close(first.state, second.state, rtol=0, atol=0)


@pytest.mark.distributed
def test_unequal_batches_of_two_ranks_are_one_batch() -> None:
    one_batch(run_ranks(2, on_ranks))


def on_a_gpu(rank: int, folder: str) -> None:
    """Two ranks share it: gloo does that, NCCL does not."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save([tuple(found) for found in on_ranks(rank, torch.device("cuda"))], f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
def test_torch_s_own_on_a_gpu_does_the_same(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(on_a_gpu, (str(tmp_path),), nprocs=2)  # CUDA cannot be forked
    one_batch([[Found(*found) for found in torch.load(tmp_path / str(rank))] for rank in range(2)])


def test_batches_are_not_one_where_nothing_joins_them() -> None:
    """What the test above tells: a layer that saw its own rank alone would make something else."""
    apart = [passes(layer_of("3d"), lambda every, rank=rank: every[rank], "3d") for rank in range(2)]
    whole = passes(layer_of("3d"), torch.cat, "3d")
    for pair, expected in zip(zip(*(found.tensors for found in apart), strict=True), whole.tensors, strict=True):
        assert (torch.cat(pair) - expected).abs().max() > 0.1
    for name in ("running_mean", "running_var"):
        assert (sum(found.state[name] for found in apart) / 2 - whole.state[name]).abs().max() > 0.01


def without_peers(rank: int) -> None:
    """In eval mode rank 0 may look alone; in train mode a process alone is BatchNorm."""
    for kind in LAYERS if rank == 0 else ():
        for mode in (True, False) if dist.get_world_size() == 1 else (False,):
            plain, joint = layer_of(kind).train(mode), synchronised(layer_of(kind).train(mode), CPU)
            found, expected = (passes(layer, lambda every: every[1], kind) for layer in (joint, plain))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    dist.barrier()  # a rank that has left too early is missed by the other


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_without_peers_it_is_batchnorm_to_the_last_bit(ranks: int) -> None:
    run_ranks(ranks, without_peers)


def in_bf16(rank: int) -> Found:
    values, gradient = (batches("3d", part)[rank].bfloat16() for part in range(2))
    return one_pass(synchronised(layer_of("3d"), CPU), values, gradient)


def one_pass(layer: nn.Module, values: Tensor, gradient: Tensor) -> Found:
    values.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = layer(values)
    made.backward(gradient)
    return Found([made.detach(), grad_of(values)], *left(layer))


@pytest.mark.distributed
def test_bf16_is_normalised_by_statistics_in_float32() -> None:
    """Of the same bf16 values; sums are those of float32 to its own last digits."""
    first, second = run_ranks(2, in_bf16)
    values, gradient = (torch.cat([b.bfloat16() for b in batches("3d", part)]).float() for part in range(2))
    whole = one_pass(layer_of("3d"), values, gradient)
    for *pair, expected in zip(first.tensors, second.tensors, whole.tensors, strict=True):
        assert all(part.dtype == torch.bfloat16 for part in pair)
        torch.testing.assert_close(torch.cat(pair).float(), expected, rtol=0.01, atol=0.01)
    close({name: first.gradients[name] + second.gradients[name] for name in first.gradients}, whole.gradients)
    close(first.state, whole.state)


def test_only_what_a_layer_computes_is_another_thing() -> None:
    """Names, parameters and buffers are the same objects in the same order, a layer used twice stays one, a frozen one in eval mode."""
    objective = Solo(norm="batch")
    objective.add_module("again", objective.trunk.norm)
    objective.add_module("frozen", nn.Sequential(nn.BatchNorm1d(2), nn.GroupNorm(1, 2)).eval())
    before = {name: (id(value), type(value)) for name, value in tensors_of(objective)}
    modes = [(name, module.training) for name, module in objective.named_modules()]
    found = synchronised(objective, CPU)
    assert list({name: (id(value), type(value)) for name, value in tensors_of(found)}.items()) == list(before.items())
    assert [(name, module.training) for name, module in found.named_modules()] == modes
    joint = [name for name, module in found.named_modules() if isinstance(module, JointBatchNorm)]
    assert joint == ["trunk.norm", "frozen.0"]
    assert found.again is found.trunk.norm


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
