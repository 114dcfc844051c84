"""BatchNorm over the clips of all processes: torch's own on GPUs, and on CPUs, whose tensors torch's refuses (2.15), ours."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


def synchronised(module: Module, device: torch.device) -> Module:
    """`module`, which stands on `device`, with each BatchNorm's statistics over all processes; names, tensors and modes stay.

    From then on each pass in train mode, with gradient or without, waits for that of every other rank, and so does each backward.
    They meet since all ranks make the same passes in the same order, and autograd goes back through them in the opposite order, last
    pass first, whatever else is in the graph. A pass that is made, or is given a gradient, on some ranks alone never ends.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return]
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = JointBatchNorm  # the layer itself, with another `forward`: nothing is to be carried over
    return module


class JointBatchNorm(_BatchNorm):
    """BatchNorm of the batch that all processes have together; how many values each of them brings does not matter.

    Plain BatchNorm in eval mode, and where this process has no peers.
    """

    def forward(self, input: Float[Tensor, "b c *_"]) -> Float[Tensor, "b c *_"]:
        """Normalised, in the type of `input`. Statistics are taken in float32.

        Raises:
            ValueError: the input has no channels.
        """
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        joint = joint_statistics(input.detach())
        if self.running_mean is not None:
            self._track(joint)
        return _Normalise.apply(input, self.weight, self.bias, *joint, self.eps)  # type: ignore[no-any-return]

    def _track(self, joint: Statistics) -> None:
        """As torch has it: the running variance is the unbiased one, and without a momentum all batches count alike."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(joint.mean, momentum)
        self.running_var.lerp_(joint.variance * joint.number / (joint.number - 1), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected an input with channels (b, c, ...), got {tuple(input.shape)}")


class Statistics(NamedTuple):
    """Of each channel, over all processes, each of which has at least one value."""

    mean: Float[Tensor, " c"]
    variance: Float[Tensor, " c"]  # the biased one, which normalises
    number: Float[Tensor, ""]  # of values that they are of


def joint_statistics(values: Float[Tensor, "b c *_"]) -> Statistics:
    """One all-gather. Every rank adds up in the same order: the result is the same everywhere, to the last bit."""
    channels = values.shape[1]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)  # what BatchNorm itself calls
    own = torch.cat([mean, variance, mean.new_tensor([values.numel() // channels])])
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own)
    means, variances, numbers = torch.stack(rows).split([channels, channels, 1], dim=1)
    share = numbers / numbers.sum()
    mean = (share * means).sum(dim=0)
    return Statistics(mean, (share * (variances + (means - mean).square())).sum(dim=0), numbers.sum())


class _Normalise(torch.autograd.Function):
    """BatchNorm with statistics that depend on the input of all processes (Ioffe and Szegedy, 2015, section 3).

    The gradient that a rank gives its input is that of the *sum* of all ranks' losses, those of weight and bias are of its own values
    alone: the engines take the mean over the ranks of them and of everything below.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        number: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, number)
        ctx.eps, ctx.biased = eps, bias is not None
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, variance, number = ctx.saved_tensors
        # As if mean and variance were constants: sums over this rank's values of gradient * normalised x, and of the gradient.
        wide = x.to(mean.dtype)
        direct, scale, offset = torch.ops.aten.native_batch_norm_backward(
            gradient.to(mean.dtype), wide, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        together = torch.stack([scale, offset])
        dist.all_reduce(together)
        inverse = (variance + ctx.eps).rsqrt()
        slope, level = together * (inverse if weight is None else inverse * weight) / number
        slope = slope * inverse  # what comes back through the variance; through the mean, `level`
        shape = (1, -1, *(1,) * (x.ndim - 2))
        direct -= torch.addcmul((level - slope * mean).view(shape), wide, slope.view(shape))
        own = (None if weight is None else scale, offset if ctx.biased else None)
        return direct.to(x.dtype), *own, None, None, None, None
