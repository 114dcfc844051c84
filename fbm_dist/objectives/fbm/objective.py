"""FBM as an objective: the total loss of eq. 7, the features that are kept, and the picture of Figure 2 (Lin et al., 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.encoder import FBMEncoder
from fbm_dist.objectives.fbm.frames import Target, target
from fbm_dist.objectives.fbm.losses import background_coherency, feature_distance, reconstruction
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

        Terms: rec_first_foreground, rec_first_background, rec_last_foreground (rec_random_foreground with `random_frame`), feature,
        coherency (where its weight is not 0), mask_share, the share of foreground pixels in the two frames that are reconstructed,
        and with a trimap uncertain_share, likewise of don't cares.

        Raises:
            ValueError: the clip has no mask, or another shape than the config says.
        """
        assert player == "model", f"FBM has one player, 'model', not {player!r}"
        frame = self._frame(clip)
        first = target(clip, 0, self.config)
        last = target(clip, -1 if frame is None else frame, self.config)
        out = self.model(clip.video, frame)
        # After the pass with gradient: autocast would otherwise cache weights that it cast without one.
        with torch.no_grad():
            reversed_clip = self.model.encoder.maps(clip.video.flip(2))
        moved = "rec_last_foreground" if frame is None else "rec_random_foreground"
        terms = {
            "rec_first_foreground": reconstruction(out.first_foreground, first.foreground, first.weights),
            "rec_first_background": reconstruction(out.first_background, first.background, first.known),
            moved: reconstruction(out.last_foreground, last.foreground, last.weights),
        }
        total = sum(terms.values(), start=torch.zeros((), device=clip.video.device))
        whole = None if frame is None else frame == self.config.frames - 1
        terms["feature"] = feature_distance(out.last_features, reversed_clip.foreground, whole)
        total = total + self.config.feature_weight * terms["feature"]
        if self.config.coherency.weight > 0:
            background = out.bottleneck.background.flatten(1)
            margin = self.config.coherency.margin
            terms["coherency"] = background_coherency(
                background, reversed_clip.background.flatten(1), clip.film, margin
            )
            total = total + self.config.coherency.weight * terms["coherency"]
        terms |= shares(first, last)
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """foreground, background and motion of each clip, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"reconstruction": one picture for each of the first 8 clips}, with the columns of the paper's Figure 2; made in eval mode.

        Columns: input, foreground and background of the first frame, foreground of the last. Above what the network should make,
        beside the input's first frame; below what it makes, beside the input's last frame. What is masked out is mid-grey.
        """
        first, last = (target(clip, frame, self.config) for frame in (0, -1))
        video = clip.video[:PICTURES]
        with looking(self):
            out = self.model(video)
        above = [first.frame, first.foreground, first.background, last.foreground]
        below = [last.frame[:PICTURES], out.first_foreground, out.first_background, out.last_foreground]
        picture = grid([[to_uint8(tile[:PICTURES]) for tile in row] for row in (above, below)])
        pictures = {"reconstruction": titled(picture, COLUMNS)}
        return pictures if self.config.random_frame is None else pictures | {"frames": self._frames(clip)}

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

    def _frame(self, clip: Clip) -> Int64[Tensor, " b"] | None:
        """t of each clip, any but the first with equal chance, drawn anew for each micro-batch; None: the last, always, as in the paper.

        By torch's own generator, which a checkpoint holds. In eval mode it is the last frame: validation draws nothing.
        """
        if self.config.random_frame is None:
            return None
        frames = self.config.frames
        drawn = torch.randint(1, frames, (len(clip),)) if self.training else torch.full((len(clip),), frames - 1)
        return drawn.to(clip.video.device)

    def _frames(self, clip: Clip) -> UInt8[Tensor, "n gh gw 3"]:
        """The foregrounds of four later frames of the first 8 clips above what the network makes of the first, made in eval mode."""
        video, rows = clip.video[:PICTURES], []
        times = [round(share * (self.config.frames - 1)) for share in (0.25, 0.5, 0.75, 1.0)]
        rows.append([to_uint8(target(clip, t, self.config).foreground[:PICTURES]) for t in times])
        with looking(self):
            made = [self.model(video, torch.full((len(video),), t, device=video.device)) for t in times]
        rows.append([to_uint8(out.last_foreground) for out in made])
        return titled(grid(rows), [f"frame {t + 1}" for t in times])


def shares(first: Target, last: Target) -> dict[str, Float[Tensor, ""]]:
    """mask_share and, with a trimap, uncertain_share: means over the two frames that are reconstructed."""
    terms = {"mask_share": (first.mask.mean() + last.mask.mean()) / 2}
    if first.known is not None and last.known is not None:
        terms["uncertain_share"] = 1 - (first.known.mean() + last.known.mean()) / 2
    return terms
