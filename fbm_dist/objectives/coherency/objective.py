"""The temporal coherency losses as an objective: tuples of frames through one network, four losses, pictures of the tuples."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.coherency.config import (
    CoherencyConfig,
    QuadrupletLoss,
    SiameseLoss,
    SlownessLoss,
    TripletLoss,
)
from fbm_dist.objectives.coherency.losses import (
    apart,
    distances,
    over_strangers,
    ranked,
    ranked_at_once,
    together,
)
from fbm_dist.objectives.coherency.negatives import Strangers, any_other, gather_strangers, several_processes
from fbm_dist.objectives.coherency.network import CoherencyEncoder
from fbm_dist.objectives.objective import Loss, Objective

PICTURES = 8  # clips that are shown


class Coherency(Objective):
    """One player, which is the encoder: `model`. All frames of all tuples pass it together."""

    players = ("model",)

    def __init__(self, config: CoherencyConfig) -> None:
        super().__init__()
        self.config = config
        self.model = CoherencyEncoder(config)

    def forward(self, player: str, clip: Clip) -> Loss:
        """The loss that the config names, in float32, mean over tuples.

        Terms: near (distance to the neighbour), far (to the far frame), stranger (to the own negative), each where the loss has it;
        hinge (its mean), active (share of the hinges that are above 0), spread (of embeddings over the batch: 0 means collapse).

        Raises:
            ValueError: the clip has other frames than the loss needs; negatives=any and a single clip to train on.
        """
        assert player == "model", f"this family has one player, 'model', not {player!r}"
        frames = self._embedded(clip)
        found = {role: distances(frames["query"], frames[role]) for role in self.config.loss.roles[1:]}
        strangers = self._strangers(frames, clip)
        if strangers is not None:
            found["stranger"] = strangers.own
        cost, hinge = self._loss(found, strangers)
        terms = {
            **{("near" if role == "neighbour" else role): d.mean() for role, d in found.items()},
            "hinge": hinge.mean(),
            "active": (hinge > 0).float().mean(),
            "spread": frames["query"].var(dim=0, correction=0).sum().sqrt(),
        }
        return Loss(cost, {name: term.detach() for name, term in terms.items()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """fc6, fc6_pre, fc7 and fc7_pre of each clip: means over all its frames, so give it single frames or a clip of one film."""
        return self.model(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"tuples": one picture for each of the first 8 clips}: its frames, each under its distance to the query; made in eval mode."""
        video = clip.video[:PICTURES]
        names = self._columns(clip)
        with looking(self):
            frames = self._normalized(video)
        apart_by = torch.stack([distances(frames[0], each) for each in frames], dim=1)
        tiles = grid([[to_uint8(video[:, :, t]) for t in range(video.shape[2])]])
        numbered = [
            titled(picture[None], [f"{d:.2f}" for d in row])
            for picture, row in zip(tiles, apart_by.tolist(), strict=True)
        ]
        return {"tuples": titled(torch.cat(numbered), names)}

    def encoder(self) -> CoherencyEncoder:
        """The base network up to the embedding; shares its parameters with the objective."""
        return self.model

    def _columns(self, clip: Clip) -> list[str]:
        """The titles of a picture: t, t + 1, t + 20, other film."""
        moments = (clip.frames[0] - clip.frames[0, 0]).tolist()[: len(self.config.loss.roles)]
        titles = [f"t + {moment}" if moment else "t" for moment in moments]
        return titles + ["other film"] * (clip.video.shape[2] - len(titles))

    def _normalized(self, video: Float[Tensor, "b c t h w"]) -> list[Float[Tensor, "b d"]]:
        """Embeddings of each frame in float32, by position in the tuple; of length 1 where the config says so."""
        embedded = self.model.embed(video.transpose(1, 2).flatten(0, 1)).float()
        if self.config.normalize:
            embedded = F.normalize(embedded, dim=1)
        return list(embedded.unflatten(0, (video.shape[0], -1)).unbind(dim=1))

    def _embedded(self, clip: Clip) -> dict[str, Float[Tensor, "b d"]]:
        """The frames' embeddings by role; the frame of another film is the stranger."""
        config = self.config
        roles = [*config.loss.roles]
        if config.loss.strangers and config.negatives == "film":
            roles.append("stranger")
        if clip.video.shape[2] != len(roles):
            raise ValueError(
                f"the loss {config.loss.kind!r} takes {len(roles)} frames ({', '.join(roles)}), and the clip has "
                f"{clip.video.shape[2]}: set data.clip.frames, data.clip.offsets and data.clip.negative"
            )
        return dict(zip(roles, self._normalized(clip.video), strict=True))

    def _strangers(self, frames: dict[str, Float[Tensor, "b d"]], clip: Clip) -> Strangers | None:
        """Distances to the negatives; None where the loss has none."""
        config, query = self.config, frames["query"]
        if not config.loss.strangers:
            return None
        alone = config.negatives == "any" and len(query) == 1
        if alone and self.training:
            raise ValueError(
                "objective.negatives=any takes negatives from the other clips of a micro-batch, and this one has a single clip; "
                "set training.micro_batch to 2 or more"
            )
        own = any_other(query) if config.negatives == "any" else frames["stranger"]
        distance = distances(query, own)[:, None]
        counts = torch.full_like(distance, not alone, dtype=torch.bool)
        # Not in validation and for pictures: there the processes have batches of their own.
        if config.gather_negatives and self.training and several_processes():
            others, further = gather_strangers(query, clip.film, any_film=config.negatives == "any")
            exact = torch.cdist(query, others, compute_mode="donot_use_mm_for_euclid_dist")
            distance, counts = torch.cat([distance, exact], dim=1), torch.cat([counts, further], dim=1)
        return Strangers(distance, counts)

    def _loss(
        self, found: dict[str, Float[Tensor, " b"]], strangers: Strangers | None
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """What is minimised, and the hinges (of each tuple, or one for the batch)."""
        loss = self.config.loss
        squared = loss.distance == "squared"
        if isinstance(loss, SlownessLoss):
            hinge = apart(found["far"], loss.margin, squared)
        elif isinstance(loss, SiameseLoss):
            assert strangers is not None
            hinge = over_strangers(apart(strangers.distance, loss.margin, squared), strangers.counts)
        else:
            hinge = self._ranking(loss, found["far"], strangers)
        if isinstance(loss, TripletLoss):
            return hinge.mean(), hinge
        if isinstance(loss, QuadrupletLoss):
            near = found["neighbour"].square() if squared else found["neighbour"]
        else:
            near = together(found["neighbour"], squared)
        return near.mean() + loss.weight * hinge.mean(), hinge

    def _ranking(
        self, loss: QuadrupletLoss | TripletLoss, far: Float[Tensor, " b"], strangers: Strangers | None
    ) -> Tensor:
        """The hinge of eq. 3, of each tuple or once for the batch."""
        assert strangers is not None
        squared = loss.distance == "squared"
        if loss.hinge == "batch":
            return ranked_at_once(far, strangers.own, loss.margin, squared) * strangers.counts.all()
        return over_strangers(ranked(far, strangers.distance, loss.margin, squared), strangers.counts)
