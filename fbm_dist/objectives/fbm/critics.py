"""The second player: critics of pairs of features (is it one scene?) and of frames (is it real?). Dropped after pretraining."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.encoder import BOTTLENECK, Channels

TINY = 1e-4  # of a variance: a channel that says nothing is no reason to divide by nothing
SLOPE = 0.2  # of the leaky ReLUs
PATCHES = 8  # side of the map of a frame critic's answers


class SceneCritic(nn.Module):
    """Every pair of two sets of features -> a logit: are they of one scene? (DrNet's scene discriminator, of FBM's maps)

    The features are standardised over the micro-batch, so that the model cannot hide by making them small.
    """

    def __init__(self, left: int, right: int, hidden: int, layers: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        places = 1 if pool else BOTTLENECK**2
        # The first layer of a pair is the sum of one layer for each side: m + n products in place of m * n.
        self.left = nn.Linear(left * places, hidden)
        self.right = nn.Linear(right * places, hidden, bias=False)
        deeper: list[nn.Module] = []
        for _ in range(layers - 1):
            deeper += [nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden)]
        self.deeper = nn.Sequential(*deeper, nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1))

    def forward(self, left: Float[Tensor, "m c 4 4"], right: Float[Tensor, "n d 4 4"]) -> Float[Tensor, "m n"]:
        """A logit of each of the m * n pairs."""
        one, two = self.left(self._prepared(left)), self.right(self._prepared(right))
        return self.deeper(one[:, None] + two[None]).squeeze(-1)

    def _prepared(self, maps: Float[Tensor, "b c 4 4"]) -> Float[Tensor, "b _"]:
        maps = standardised(maps)
        return maps.mean(dim=(2, 3)) if self.pool else maps.flatten(1)


def standardised(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Without what all clips share at a place, and with variance 1 of each channel over clips and places; in float32.

    Gradient flows through both. By channel, and not by feature, as a micro-batch has few clips.
    """
    centred = maps.float() - maps.float().mean(dim=0)
    return centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + TINY).sqrt()


class SpectralConvolution(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al., 2018, Algorithm 1).

    One power iteration a forward in training mode; `direction` is the left singular vector so far. It is written out here because
    ZeRO-3 fetches a module's own parameters, and not those of a parametrisation that makes them.
    """

    direction: Tensor

    def __init__(self, channels: int, out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(channels, out, kernel, stride, padding)
        self.register_buffer("direction", F.normalize(torch.randn(out), dim=0))

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b o h2 w2"]:
        """The convolution with the normalised weight."""
        with torch.autocast(x.device.type, enabled=False):  # bf16 has too few digits for the iteration
            matrix = self.weight.float().flatten(1)
            with torch.no_grad():
                right = F.normalize(matrix.T @ self.direction, dim=0)
                left = F.normalize(matrix @ right, dim=0)
                if self.training:
                    self.direction.copy_(left)
            weight = self.weight / (left @ matrix @ right)
        return self._conv_forward(x, weight, self.bias)


class FrameCritic(nn.Module):
    """Masked frame -> a logit for each of 8x8 overlapping patches: is it real? Without BatchNorm: a clip is judged by itself alone."""

    def __init__(self, width: int, size: int, conditional: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, out, side = 6 if conditional else 3, width, size
        while side > PATCHES:
            layers += [SpectralConvolution(channels, out, kernel=4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            channels, out, side = out, 2 * out, side // 2
        self.layers = nn.Sequential(*layers, SpectralConvolution(channels, 1, kernel=3, stride=1, padding=1))
        self.conditional = conditional

    def forward(self, image: Float[Tensor, "b 3 h w"], condition: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 8 8"]:
        """Logits. `condition`: another frame of the same clip, which is looked at if the critic is conditional."""
        return self.layers(torch.cat([image, condition], dim=1) if self.conditional else image)


class Critics(nn.Module):
    """One player for the trainer: the critics that the config asks for, each with a game of its own."""

    def __init__(self, config: FBMConfig) -> None:
        super().__init__()
        channels = Channels.of(config.width)
        scene, frames = config.scene_critic, config.frame_critic
        if scene.weight > 0:
            right = channels.background if scene.pairs == "background" else channels.motion
            self.scene = SceneCritic(channels.motion, right, scene.hidden, scene.layers, scene.pool)
        if frames.weight > 0:
            width, size, conditional = channels.c3d[0], config.size, frames.conditional
            self.frames = nn.ModuleDict(
                {part: FrameCritic(width, size, conditional) for part in ("foreground", "background")}
            )
