"""FBM as an objective: the total loss of eq. 7, the features that are kept, and the picture of Figure 2 (Lin et al., 2017)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import looking
from fbm_dist.objectives.fbm.adversarial import confuse_scenes, scene_accuracy, tell_scenes
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.critics import Critics
from fbm_dist.objectives.fbm.encoder import Bottleneck, FBMEncoder
from fbm_dist.objectives.fbm.exchange import exchanged
from fbm_dist.objectives.fbm.frames import Target, target
from fbm_dist.objectives.fbm.judging import critics_loss, judged, models_loss
from fbm_dist.objectives.fbm.losses import background_coherency, feature_distance, reconstruction
from fbm_dist.objectives.fbm.network import FBMNetwork
from fbm_dist.objectives.fbm.pictures import figure_2, later_frames
from fbm_dist.objectives.fbm.scene import Elsewhere, Pairs, Views, scene_pairs, transplanted
from fbm_dist.objectives.fbm.share import share
from fbm_dist.objectives.objective import Loss, Objective, Segmenter

REUSED = ("encoder.", "foreground_decoder.")  # the graph runs them twice per step
GREY_LEVEL = 2 / 255  # one step of an 8-bit frame in [-1, 1]

Weighted = dict[str, tuple[float, Tensor]]  # the terms of a loss and their weights
Shown = dict[str, Tensor]  # figures that are in no loss


class FBM(Objective, Segmenter):
    """One player, or with a critic two. The encoder is `model.encoder`; what else there is is dropped after pretraining."""

    def __init__(self, config: FBMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = FBMNetwork(config)
        if config.has_critic:
            self.critic = Critics(config)
            self.players = ("critic", "model")
        self._norms = norm_parameters(self.model)

    def forward(self, player: str, clip: Clip) -> Loss:
        """What `player` minimises on `clip`, whose `mask` must be there: L_total of eq. 7 with the terms that are on; or the critics' loss.

        Terms of the model: rec_first_foreground, rec_first_background, rec_last_foreground (rec_random_foreground with `random_frame`),
        feature, then what is on of coherency, scene_share, object_share, scene_confusion and adversarial; mask_share, the share of
        foreground pixels in the two frames that are reconstructed, and with a trimap uncertain_share, likewise of don't cares.
        Terms of the critic: scene_critic and scene_accuracy, frame_critic.

        Raises:
            ValueError: the clip has no mask, or another shape than the config says.
        """
        assert player in self.players, f"this FBM has the players {self.players}, not {player!r}"
        frame = self._frame(clip)
        first, last = (target(clip, t, self.config) for t in (0, -1 if frame is None else frame))
        terms, shown = (self._criticise if player == "critic" else self._learn)(clip, frame, first, last)
        total = torch.zeros((), device=clip.video.device)
        for weight, term in terms.values():
            total = total + weight * term
        values = {name: term for name, (_, term) in terms.items()} | shown
        return Loss(total, {name: value.detach() for name, value in values.items()})

    def _learn(
        self, clip: Clip, frame: Int64[Tensor, " b"] | None, first: Target, last: Target
    ) -> tuple[Weighted, Shown]:
        """The model's turn."""
        config = self.config
        out = self.model(clip.video, frame)
        moved = "rec_last_foreground" if frame is None else "rec_random_foreground"
        terms: Weighted = {
            "rec_first_foreground": (1, reconstruction(out.first_foreground, first.foreground, first.weights)),
            "rec_first_background": (1, reconstruction(out.first_background, first.background, first.known)),
            moved: (1, reconstruction(out.last_foreground, last.foreground, last.weights)),
        }
        # After the pass with gradient: autocast would otherwise cache weights that it cast without one.
        views = self._views(clip, out.bottleneck)
        assert views.reversed is not None
        whole = None if frame is None else frame == config.frames - 1
        feature = feature_distance(out.last_features, views.reversed.foreground, whole)
        terms["feature"] = (config.feature_weight, feature)
        if config.coherency.weight > 0:
            ours, theirs = (maps.background.flatten(1) for maps in (out.bottleneck, views.reversed))
            coherency = background_coherency(ours, theirs, clip.film, config.coherency.margin)
            terms["coherency"] = (config.coherency.weight, coherency)
        if views.elsewhere is not None and config.scene_share > 0:
            motion, _, exists = views.elsewhere
            terms["scene_share"] = (config.scene_share, share(out.bottleneck.motion, motion, exists))
        if config.object_share > 0:
            video, exists = exchanged(clip, config)
            motion = self.model.encoder.maps(video).motion
            terms["object_share"] = (config.object_share, share(out.bottleneck.motion, motion, exists))
        if config.scene_critic.weight > 0:
            logits, pairs = self._scenes(views, clip)
            terms["scene_confusion"] = (config.scene_critic.weight, confuse_scenes(logits, pairs.same, pairs.other))
        if config.frame_critic.weight > 0:
            frames = judged(clip, first, last, out)
            adversarial = models_loss(self.critic.frames, frames, config.frame_critic.loss)
            terms["adversarial"] = (config.frame_critic.weight, adversarial)
        return terms, shares(first, last)

    def _criticise(
        self, clip: Clip, frame: Int64[Tensor, " b"] | None, first: Target, last: Target
    ) -> tuple[Weighted, Shown]:
        """The critics' turn. What the model makes is constant, and made in the same mode: BatchNorm's running statistics go on."""
        terms, shown, out = Weighted(), Shown(), None
        with torch.no_grad():
            if self.config.frame_critic.weight > 0:
                out = self.model(clip.video, frame)
            maps = self.model.encoder.maps(clip.video) if out is None else out.bottleneck
            views = self._views(clip, maps, learning=False)
        if self.config.scene_critic.weight > 0:
            logits, pairs = self._scenes(views, clip)
            terms["scene_critic"] = (1, tell_scenes(logits, pairs.same, pairs.other))
            shown["scene_accuracy"] = scene_accuracy(logits, pairs.same, pairs.other)
        if out is not None:
            frames = judged(clip, first, last, out)
            terms["frame_critic"] = (1, critics_loss(self.critic.frames, frames, self.config.frame_critic.loss))
        return terms, shown

    def _views(self, clip: Clip, maps: Bottleneck, learning: bool = True) -> Views:
        """`maps` of the clips, and what the terms of this turn (`learning`: the model's) compare them with."""
        config, elsewhere, reversed_ = self.config, None, None
        pairs = config.scene_critic.pairs if config.scene_critic.weight > 0 else None
        if pairs == "transplanted" or (learning and config.scene_share > 0):
            clips = transplanted(clip, config)
            with nullcontext() if config.scene_share > 0 else torch.no_grad():
                elsewhere = Elsewhere(self.model.encoder.maps(clips.video).motion, clips.scene, clips.exists)
        if pairs == "reversed" or learning:
            with torch.no_grad():
                reversed_ = self.model.encoder.maps(clip.video.flip(2))
        return Views(maps, reversed_, elsewhere)

    def _scenes(self, views: Views, clip: Clip) -> tuple[Float[Tensor, "m n"], Pairs]:
        pairs = scene_pairs(self.config.scene_critic.pairs, views, clip.film)
        return self.critic.scene(pairs.left, pairs.right), pairs

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """foreground, background and motion of each clip, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"reconstruction": one picture for each of the first 8 clips}, with the columns of the paper's Figure 2; made in eval mode.

        With `random_frame` also {"frames": ...}: four later foregrounds above what is made of the first.
        """
        pictures = {"reconstruction": figure_2(self.model, clip, self.config)}
        return (
            pictures
            if self.config.random_frame is None
            else pictures | {"frames": later_frames(self.model, clip, self.config)}
        )

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
        Of the critics, which are ours, matrices and kernels decay once, biases not.
        """
        if name.startswith("critic."):
            return super().weight_decay(name, parameter)
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


def shares(first: Target, last: Target) -> dict[str, Float[Tensor, ""]]:
    """mask_share and, with a trimap, uncertain_share: means over the two frames that are reconstructed."""
    terms = {"mask_share": (first.mask.mean() + last.mask.mean()) / 2}
    if first.known is not None and last.known is not None:
        terms["uncertain_share"] = 1 - (first.known.mean() + last.known.mean()) / 2
    return terms
