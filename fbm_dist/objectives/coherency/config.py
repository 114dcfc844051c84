"""The config of the temporal coherency networks, their base networks and losses; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.objectives.coherency.architectures import ARCHITECTURES, Name, scaled, sides, smallest
from fbm_dist.objectives.family import Family

if TYPE_CHECKING:
    from fbm_dist.objectives.coherency.network import CoherencyEncoder
    from fbm_dist.objectives.coherency.objective import Coherency
    from fbm_dist.schema import ClipSpec


class LossConfig(Config):
    """What the four losses share.

    Attributes:
        roles: of the frames of a training clip, in order.
        example: offsets that give these roles, for messages.
        strangers: the loss pushes the query away from frames of other films.
        units: of the embedding, where `objective.embedding` says nothing.
    """

    roles: ClassVar[tuple[str, ...]]
    example: ClassVar[tuple[int, ...]]
    strangers: ClassVar[bool] = True
    units: ClassVar[dict[Name, int]] = {"caffenet_zf": 4096, "alexnet": 4096, "cifar_quick": 64, "googlenet": 1024}

    # euclidean: d as the paper writes it; squared: as the authors' code has it, d^2 (README gives the equations)
    distance: Literal["euclidean", "squared"] = "euclidean"


class SiameseLoss(LossConfig):
    """L_s, eq. 2: neighbours together, frames of two films apart by a margin."""

    roles = ("query", "neighbour")
    example = (0, 1)
    kind: Literal["siamese"] = "siamese"
    margin: float = Field(1.0, gt=0)  # delta
    weight: float = Field(1.0, ge=0)  # of the pairs that are to be apart; 1: as many of these as of neighbours


class SlownessLoss(LossConfig):
    """L_SFA: neighbours together, far frames of the same film apart by a margin (Hadsell et al., 2006; Mobahi et al., 2009)."""

    roles = ("query", "neighbour", "far")
    example = (0, 1, 20)
    strangers = False
    kind: Literal["sfa"] = "sfa"
    margin: float = Field(1.0, gt=0)
    weight: float = Field(1.0, ge=0)


class TripletLoss(LossConfig):
    """L_d: a far frame of the same film nearer than a frame of another film by a margin (Wang and Gupta, 2015)."""

    roles = ("query", "far")
    example = (0, 20)
    units = LossConfig.units | {"caffenet_zf": 1024, "alexnet": 1024}
    kind: Literal["triplet"] = "triplet"
    margin: float = Field(0.5, gt=0)
    hinge: Literal["tuple", "batch"] = "tuple"  # batch: once on the sums over a micro-batch, as in the authors' code


class QuadrupletLoss(LossConfig):
    """L_q, eq. 3: neighbours together, and a far frame of the same film nearer than a frame of another film by a margin."""

    roles = ("query", "neighbour", "far")
    example = (0, 1, 20)
    units = LossConfig.units | {"caffenet_zf": 1024, "alexnet": 1024}
    kind: Literal["quadruplet"] = "quadruplet"
    margin: float = Field(0.5, gt=0)  # alpha
    weight: float = Field(1.0, ge=0)  # of the hinge; eq. 3 has none
    hinge: Literal["tuple", "batch"] = "tuple"


AnyLoss = Annotated[SiameseLoss | QuadrupletLoss | SlownessLoss | TripletLoss, Field(discriminator="kind")]


class CoherencyConfig(Family):
    """Unsupervised Learning from Videos using Temporal Coherency Deep Networks (Redondo-Cabrera and Lopez-Sastre, 2018)."""

    family: Literal["coherency"] = "coherency"
    frames: int = Field(1, ge=1)  # of a clip in probes and evaluation; features are their mean
    size: int = Field(
        227, ge=16
    )  # 227 for caffenet_zf and alexnet, 224 for googlenet, 32 for cifar_quick, or what leaves a map
    network: Name = "caffenet_zf"
    width: float = Field(1.0, gt=0, le=4)  # factor on every count of channels and units
    embedding: int | None = Field(None, ge=2)  # units of the last layer; None: the loss' own number, times width
    # original: the network's own (the authors': N(0, 0.01), biases 0.1); he: variance kept from layer to layer at any width, biases 0
    initialization: Literal["original", "he"] = "original"
    normalize: bool = True  # embeddings are brought to length 1 before distances are taken
    loss: AnyLoss = QuadrupletLoss()
    # film: the frame of another film that the loader adds; any: a frame of any other clip of the micro-batch (More Unsupervised)
    negatives: Literal["film", "any"] = "film"
    gather_negatives: bool = False  # the queries of all other processes are negatives, too

    @model_validator(mode="after")
    def _can_be_built(self) -> CoherencyConfig:
        left = sides(self.network, self.size)
        layer, side = list(left.items())[-1]
        if side < 1:
            raise ValueError(
                f"size={self.size} leaves no map after {layer} of {self.network}; "
                f"give at least {smallest(self.network)} (the original's is {ARCHITECTURES[self.network].size})"
            )
        if not self.loss.strangers and (self.negatives == "any" or self.gather_negatives):
            raise ValueError(
                f"the loss {self.loss.kind!r} knows no other film: leave negatives and gather_negatives out, or choose another loss"
            )
        if self.gather_negatives and getattr(self.loss, "hinge", "tuple") == "batch":
            raise ValueError("gather_negatives needs a hinge of its own for each tuple: set loss.hinge=tuple")
        return self

    @property
    def units(self) -> int:
        """Length of the embedding."""
        return self.embedding or scaled(self.loss.units[self.network], self.width)

    def check_clip(self, clip: ClipSpec) -> None:
        """Whether the frames of a clip that is cut like this have the roles of the loss.

        Raises:
            ValueError: naming the key, its value, and what to set.
        """
        loss, negative = self.loss, self.loss.strangers and self.negatives == "film"
        count = len(loss.roles)
        wanted = f"data.clip.frames={count} data.clip.offsets={list(loss.example)} data.clip.negative={str(negative).lower()}"
        told = f"the loss {loss.kind!r} takes {', '.join(loss.roles)}" + (
            " and a frame of another film" if negative else ""
        )
        if self.negatives == "any":
            told += " (negatives=any: other clips of the batch)"
        if clip.frames != count or len(clip.offsets) != count:
            raise ValueError(
                f"data.clip.frames is {clip.frames} and data.clip.offsets {list(clip.offsets)}, but {told}; set {wanted}"
            )
        if clip.negative != negative:
            raise ValueError(f"data.clip.negative is {str(clip.negative).lower()}, but {told}; set {wanted}")
        if clip.reverse and count > 2:
            raise ValueError(f"data.clip.reverse is {clip.reverse}, but {told}, in this order; set data.clip.reverse=0")
        self.check_size(clip)

    def build(self) -> Coherency:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.coherency.objective import Coherency

        return Coherency(self)

    def build_encoder(self) -> CoherencyEncoder:
        """The base network up to the embedding, with freshly initialised weights."""
        from fbm_dist.objectives.coherency.network import CoherencyEncoder

        return CoherencyEncoder(self)
