"""Small objectives over random clips in memory: what the trainer is tested with, free of any model and data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.data.order.state import LoaderState
from fbm_dist.objectives.objective import Encoder, Loss, Objective
from fbm_dist.schema import Data

SIZE = 8
FRAMES = 4


class ToyEncoder(Encoder):
    """Conv3d, norm, mean."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm3d(width) if norm == "batch" else nn.GroupNorm(2, width)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        return {"all": F.relu(self.norm(self.conv(video))).mean(dim=(2, 3, 4))}


class Solo(Objective):
    """One player: video -> its mean colour per frame; has a parameter of its own beside its submodules'."""

    def __init__(self, width: int = 8, norm: str = "group", dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = ToyEncoder(width, norm)
        self.head = nn.Linear(width, 3 * FRAMES)
        self.scale = nn.Parameter(torch.ones(3 * FRAMES))
        self.dropout = dropout

    def forward(self, player: str, clip: Clip) -> Loss:
        assert player == "model"
        features = F.dropout(self.features(clip)["all"], self.dropout, self.training)
        wanted = clip.video.mean(dim=(3, 4)).flatten(1)
        loss = F.mse_loss((self.head(features) * self.scale).float(), wanted)
        return Loss(loss, {"error": loss.detach().sqrt()})

    def features(self, clip: Clip) -> dict[str, Tensor]:
        return self.trunk(clip.video)

    def visualize(self, clip: Clip) -> dict[str, Tensor]:
        assert not self.training
        return {"first_frame": (clip.video[:, :, 0].permute(0, 2, 3, 1) * 127.5 + 127.5).to(torch.uint8)}

    def encoder(self) -> Encoder:
        return self.trunk


class Duel(Objective):
    """Two players as in DrNet: a critic tells neighbours from strangers by the model's features; the model evades it."""

    players = ("critic", "model")

    def __init__(self, width: int = 8, strangers: str = "others") -> None:
        """`strangers`: another clip's second half, or the own one mirrored: then the loss is a mean over clips, however they are dealt."""
        super().__init__()
        self.strangers = strangers
        self.model = nn.ModuleDict({"trunk": ToyEncoder(width, "group"), "head": nn.Linear(width, 3)})
        self.critic = nn.Sequential(nn.Linear(2 * width, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, player: str, clip: Clip) -> Loss:
        half = clip.video.shape[2] // 2
        early, late = (self.model["trunk"](part)["all"] for part in (clip.video[:, :, :half], clip.video[:, :, half:]))
        strange = late.roll(1, 0) if self.strangers == "others" else late.flip(1)
        same, other = self.critic(torch.cat([early, late], 1)), self.critic(torch.cat([early, strange], 1))
        if player == "critic":
            ones, zeros = torch.ones_like(same), torch.zeros_like(other)
            loss = F.binary_cross_entropy_with_logits(torch.cat([same, other]), torch.cat([ones, zeros]))
            return Loss(loss, {"scene": loss.detach()})
        colour = F.mse_loss(self.model["head"](early).float(), clip.video.mean(dim=(2, 3, 4)))
        confusion = F.binary_cross_entropy_with_logits(same, torch.full_like(same, 0.5))
        return Loss(colour + 0.5 * confusion, {"colour": colour.detach(), "confusion": confusion.detach()})

    def features(self, clip: Clip) -> dict[str, Tensor]:
        return self.model["trunk"](clip.video)

    def visualize(self, clip: Clip) -> dict[str, Tensor]:
        return {}

    def encoder(self) -> Encoder:
        trunk = self.model["trunk"]
        assert isinstance(trunk, Encoder)
        return trunk


def make_clip(positions: list[int], seed: int = 0) -> Clip:
    """Random clips, each a function of its position in the stream."""
    videos = [
        torch.rand(3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(seed * 1_000_003 + p))
        for p in positions
    ]
    number = len(positions)
    return Clip(
        video=torch.stack(videos) * 2 - 1,
        mask=None,
        truth=None,
        frames=torch.arange(FRAMES).repeat(number, 1),
        film=torch.arange(number),
        key=tuple(f"clip-{p}" for p in positions),
        labels={},
    )


class Memory:
    """An endless stream of random clips in the plan's order: position s*G + m*B*W + j*W + r, as the real loader deals."""

    num_clips = 64
    decoder = "memory"
    undecodable = 0

    def __init__(
        self, data: Data, *, consumed: int, poison: tuple[int, ...] = (), digest: str = "d0", **arguments: Any
    ) -> None:
        self.consumed, self.arguments, self.poison, self.digest = consumed, arguments, poison, digest
        self.closed = False

    def agree(self, gather: Any, pinned: str | None = None) -> None:
        """There is nothing to choose."""

    def state(self, consumed: int) -> LoaderState:
        return LoaderState(
            epoch=consumed // self.num_clips,
            consumed=consumed,
            seed=self.arguments["seed"],
            dataset_digest=self.digest,
            global_batch=self.arguments["global_batch"],
            decoder=self.decoder,
        )

    def __iter__(self) -> Iterator[Clip]:
        rank, world, micro = (self.arguments[k] for k in ("rank", "world_size", "micro_batch"))
        start = self.consumed
        while True:
            positions = [start + j * world + rank for j in range(micro)]
            clip = make_clip(positions, self.arguments["seed"])
            if set(positions) & set(self.poison):
                clip.video.fill_(float("nan"))
            yield clip
            start += micro * world

    def close(self) -> None:
        self.closed = True
