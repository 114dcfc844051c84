"""The one interface between models and everything else: Objective says what is to be minimised; the trainer does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fbm_dist.clip import Clip


@dataclass(frozen=True)
class Loss:
    """What one forward of one player gives."""

    total: Float[Tensor, ""]  # what this player minimises
    terms: dict[str, Tensor] = field(default_factory=dict)  # what the log shows: detached scalars


class Encoder(nn.Module, ABC):
    """What is kept after pretraining, registered, and pulled by name: video -> named features."""

    @abstractmethod
    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video in [-1, 1] -> flat feature vectors by name, e.g. foreground, background, motion."""


class Segmenter(ABC):
    """A capability: what can tell a clip's foreground from its background without being given a mask."""

    @abstractmethod
    def segment(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 h w"]:
        """Soft foreground score in [0, 1] of each clip's first frame, float32; video in [-1, 1]. Made in eval mode, without gradient."""


class Objective(nn.Module, ABC):
    """A game of one or more players. Each is a submodule with its own optimizer; they move in this order.

    The objective never calls backward, steps or reduces; the trainer lets gradients reach one player at a time.
    """

    players: tuple[str, ...] = ("model",)

    @abstractmethod
    def forward(self, player: str, clip: Clip) -> Loss:
        """The loss that `player` minimises on `clip`.

        Every process makes the same passes, and gradients go back through the same ones, whatever is in its clips: ZeRO-3 and
        `sync_batchnorm` wait for the others in both. A term that has nothing to say is 0 times what it would look at.
        """

    @abstractmethod
    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """Named features of each clip, e.g. foreground, background, motion."""

    @abstractmethod
    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """Pictures for a human, by name."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """The part that is registered. Shares its parameters with the objective."""

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """The factor on the configured weight decay for the parameter called `name`; default: none for vectors (norms, biases)."""
        return 0.0 if parameter.ndim <= 1 else 1.0
