"""The game for sharper frames: critics are shown real masked frames and what the decoders made of the same clips."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.objectives.fbm.adversarial import Kind, pass_for_real, tell_frames
from fbm_dist.objectives.fbm.frames import Target, at
from fbm_dist.objectives.fbm.network import Reconstruction


class Judged(NamedTuple):
    """Real frames, made ones, and beside both the frame at the clip's other end: shown the same frame, a critic would compare pixels.

    `seen`: frames of which there is something to be seen; an empty mask says nothing about the foreground (W = 0 there).
    """

    real: Float[Tensor, "b 3 h w"]
    made: Float[Tensor, "b 3 h w"]
    condition: Float[Tensor, "b 3 h w"]
    seen: Bool[Tensor, " b"]


def judged(clip: Clip, first: Target, last: Target, out: Reconstruction) -> dict[str, Judged]:
    """By critic: the first and the last foreground, which one decoder makes, as twice the batch; and the first background."""
    end = at(clip.video, -1)
    foreground = Judged(
        real=torch.cat([first.foreground, last.foreground]),
        made=torch.cat([first.kept(out.first_foreground), last.kept(out.last_foreground)]),
        condition=torch.cat([end, first.frame]),
        seen=torch.cat([first.mask, last.mask]).flatten(1).any(dim=1),
    )
    behind = first.kept(torch.ones_like(first.mask)) - first.mask
    background = Judged(first.background, first.kept(out.first_background), end, behind.flatten(1).any(dim=1))
    return {"foreground": foreground, "background": background}


def critics_loss(critics: nn.ModuleDict, frames: dict[str, Judged], loss: Kind) -> Float[Tensor, ""]:
    """The mean over the critics of what they pay for telling real from made."""
    paid = []
    for name, (real, made, condition, seen) in frames.items():
        both = critics[name](torch.cat([real, made]), torch.cat([condition, condition]))
        on_real, on_made = both.chunk(2)
        paid.append(tell_frames(on_real, on_made, seen, loss))
    return torch.stack(paid).mean()


def models_loss(critics: nn.ModuleDict, frames: dict[str, Judged], loss: Kind) -> Float[Tensor, ""]:
    """The mean over the critics of what the model pays for being found out."""
    paid = [pass_for_real(critics[name](f.made, f.condition), f.seen, loss) for name, f in frames.items()]
    return torch.stack(paid).mean()
