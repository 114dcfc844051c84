"""FBM as an objective: the total loss of eq. 7, the features that are kept, and the picture of Figure 2 (Lin et al., 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.encoder import FBMEncoder
from fbm_dist.objectives.fbm.losses import background_coherency, feature_distance, foreground_weights, reconstruction
from fbm_dist.objectives.fbm.network import FBMNetwork
from fbm_dist.objectives.objective import Loss, Objective, Segmenter

PICTURES = 8  # clips that are shown
COLUMNS = ("input", "foreground", "background", "last foreground")
REUSED = ("encoder.", "foreground_decoder.")  # the graph runs them twice per step
GREY_LEVEL = 2 / 255  # one step of an 8-bit frame in [-1, 1]


class FBM(Objective, Segmenter):
    """One player. The encoder is `model.encoder`; what else is under `model` is dropped after pretraining."""

    players = ("model",)

    def __init__(self, config: FBMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = FBMNetwork(config)
        self._norms = norm_parameters(self.model)

    def forward(self, player: str, clip: Clip) -> Loss:
        """L_total of eq. 7 on `clip`, whose `mask` must be there.

        Terms: rec_first_foreground, rec_first_background, rec_last_foreground, feature, coherency (where its weight is not 0),
        and mask_share, the share of foreground pixels in the two frames that are reconstructed.

        Raises:
            ValueError: the clip has no mask, or another shape than the config says.
        """
        assert player == "model", f"FBM has one player, 'model', not {player!r}"
        mask = self._mask(clip)
        out = self.model(clip.video)
        # After the pass with gradient: autocast would otherwise cache weights that it cast without one.
        with torch.no_grad():
            reversed_clip = self.model.encoder.maps(clip.video.flip(2))
        first, last = mask[:, :, 0], mask[:, :, -1]
        frame, final = clip.video[:, :, 0], clip.video[:, :, -1]
        terms = {
            "rec_first_foreground": reconstruction(out.first_foreground, frame * first, foreground_weights(first)),
            "rec_first_background": reconstruction(out.first_background, frame * (1 - first)),
            "rec_last_foreground": reconstruction(out.last_foreground, final * last, foreground_weights(last)),
        }
        total = sum(terms.values(), start=torch.zeros((), device=clip.video.device))
        terms["feature"] = feature_distance(out.last_features, reversed_clip.foreground)
        total = total + self.config.feature_weight * terms["feature"]
        if self.config.coherency.weight > 0:
            background = out.bottleneck.background.flatten(1)
            margin = self.config.coherency.margin
            terms["coherency"] = background_coherency(
                background, reversed_clip.background.flatten(1), clip.film, margin
            )
            total = total + self.config.coherency.weight * terms["coherency"]
        terms["mask_share"] = (first.mean() + last.mean()) / 2
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """foreground, background and motion of each clip, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"reconstruction": one picture for each of the first 8 clips}, with the columns of the paper's Figure 2; made in eval mode.

        Columns: input, foreground and background of the first frame, foreground of the last. Above what the network should make,
        beside the input's first frame; below what it makes, beside the input's last frame. What is masked out is mid-grey.
        """
        video, mask = clip.video[:PICTURES], self._mask(clip)[:PICTURES]
        with looking(self):
            out = self.model(video)
        first, last = mask[:, :, 0], mask[:, :, -1]
        frame, final = video[:, :, 0], video[:, :, -1]
        above = [frame, frame * first, frame * (1 - first), final * last]
        below = [final, out.first_foreground, out.first_background, out.last_foreground]
        picture = grid([[to_uint8(tile) for tile in row] for row in (above, below)])
        return {"reconstruction": titled(picture, COLUMNS)}

    def segment(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1 h w"]:
        """The implicit foreground of each clip's first frame: how much of a pixel the foreground decoder claims, in [0, 1], float32.

        score = a / (a + b), with a = mean over channels of |first foreground|, b = likewise of |first background|. What is masked
        out is 0 (mid-grey) in either target of eq. 4 and 5, so the decoder that stays grey says: not mine. Where both stay within
        one grey level together, neither says anything, and the score falls to 0. It is made in eval mode, of the video alone.

        Raises:
            ValueError: the video is not (b, 3, 16, size, size).
        """
        with looking(self):
            maps = self.model.encoder.maps(video)
            foreground = self.model.foreground_decoder(maps.foreground).float().abs().mean(dim=1, keepdim=True)
            background = self.model.background_decoder(maps.background).float().abs().mean(dim=1, keepdim=True)
        return foreground / (foreground + background).clamp(min=GREY_LEVEL)

    def encoder(self) -> FBMEncoder:
        """C3D and mapping; shares its parameters with the objective."""
        return self.model.encoder

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """1 for weights and biases of convolutions, 0 for BatchNorm; 2 for what the graph uses twice, if `double_decay`.

        The original adds each variable's L2 term once per use in the graph: encoder, mapping and foreground decoder count twice.
        """
        own = name.removeprefix("model.")
        if own in self._norms:
            return 0.0
        return 2.0 if self.config.double_decay and own.startswith(REUSED) else 1.0

    def _mask(self, clip: Clip) -> Float[Tensor, "b 1 t h w"]:
        """b_fg of eq. 2: the soft scores made binary."""
        if clip.mask is None:
            raise ValueError(
                "FBM needs masks and the clip has none: set data.clip.mask=true, and prepare the data with masks"
            )
        expected = (clip.video.shape[0], 1, *clip.video.shape[2:])
        if tuple(clip.mask.shape) != expected:
            raise ValueError(f"masks of {tuple(clip.mask.shape)} do not fit the video; expected {expected}")
        return (clip.mask > self.config.mask_threshold).to(clip.video.dtype)
