"""A linear softmax classifier on an encoder's features, frozen or fine-tuned (Lin et al., 2017, section 5, action recognition)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.initialization import xavier_
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import grid, to_uint8
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.objective import Encoder, Loss, Objective

PICTURES = 8  # clips that are shown
COLUMNS = 4  # frames of each, spread over its length


def feature_sizes(trunk: Pretraining) -> dict[str, int]:
    """The length of each feature vector that this family's encoder gives, by name. Computes no number: a run on the meta device."""
    with torch.device("meta"), torch.no_grad():
        encoder = trunk.build_encoder().eval()
        features = encoder(torch.empty(1, 3, trunk.frames, trunk.size, trunk.size))
    return {name: vector.shape[1] for name, vector in features.items()}


class TrunkAndHead(nn.Module):
    """An encoder and one linear layer on its features, joined in the order in which the encoder names them."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.trunk: Encoder = config.trunk.build_encoder()
        self.head = nn.Linear(sum(feature_sizes(config.trunk).values()), config.classes)
        xavier_(self.head)
        self.frozen = config.frozen
        self.encoder_gradient = 0.0 if config.frozen else config.encoder_gradient
        self.trunk.requires_grad_(self.encoder_gradient > 0)
        self.train()

    def train(self, mode: bool = True) -> TrunkAndHead:
        """A frozen trunk stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Video in [-1, 1] -> logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder_gradient > 0):
            features = torch.cat(list(self.trunk(video).values()), dim=1)
        if 0 < self.encoder_gradient < 1:
            features = self.encoder_gradient * features + (1 - self.encoder_gradient) * features.detach()
        return self.head(features)


class Classifier(Objective):
    """One player. The encoder is `model.trunk`, the linear layer `model.head`."""

    players = ("model",)

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.model = TrunkAndHead(config)
        self._norms = norm_parameters(self.model)

    def forward(self, player: str, clip: Clip) -> Loss:
        """Cross entropy in float32, mean over the clips that have the label (class index >= 0); 0 where none has.

        Terms: cross_entropy, accuracy (share of right answers among these clips), labelled (their share in the batch).

        Raises:
            ValueError: the clip has no such label, a class index is too large, or the video does not suit the encoder.
        """
        assert player == "model", f"a classifier has one player, 'model', not {player!r}"
        labels = self._labels(clip)
        logits = self.logits(clip.video).float()
        known = labels >= 0
        count = known.sum().clamp(min=1)
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / count
        right = (known & (logits.argmax(dim=1) == labels)).sum() / count
        terms = {"cross_entropy": total.detach(), "accuracy": right, "labelled": known.float().mean()}
        return Loss(total, terms)

    def logits(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Unnormalised log-probability of each class; video in [-1, 1], of the trunk's shape."""
        return self.model(video)

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """The trunk's features of each clip, in the mode (train or eval) that the module is in."""
        return self.model.trunk(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"input": frames of the first 8 clips, spread over their length, one row a clip}."""
        video = clip.video[:PICTURES]
        frames = video.shape[2]
        chosen = [round(i * (frames - 1) / (COLUMNS - 1)) for i in range(COLUMNS)] if frames > 1 else [0]
        return {"input": grid([[to_uint8(video[:, :, i]) for i in chosen]])}

    def encoder(self) -> Encoder:
        """The trunk; shares its parameters with the objective."""
        return self.model.trunk

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """1 for weights and biases of convolutions and the linear layer, 0 for norms, and for a trunk that gets no gradient."""
        own = name.removeprefix("model.")
        frozen = own.startswith("trunk.") and self.model.encoder_gradient == 0
        return 0.0 if frozen or own in self._norms else 1.0

    def _labels(self, clip: Clip) -> Int64[Tensor, " b"]:
        wanted = self.config.label
        if wanted not in clip.labels:
            names = ", ".join(sorted(clip.labels)) or "none"
            raise ValueError(f"the data set has no label {wanted!r}; its labels: {names}: set objective.label")
        labels = clip.labels[wanted]
        largest = int(labels.max())
        if largest >= self.config.classes:
            raise ValueError(
                f"label {wanted!r} has class index {largest}; set objective.classes to more than {self.config.classes}"
            )
        return labels
