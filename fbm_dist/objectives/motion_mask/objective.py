"""The motion-mask ConvNet as an objective: which pixels one frame should mark as moving, and what it then marks (Pathak et al., 2017)."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.objectives.motion_mask.losses import logistic, overlap, reduced, trimap
from fbm_dist.objectives.motion_mask.network import FrameEncoder, MaskNetwork
from fbm_dist.objectives.objective import Loss, Objective, Segmenter

PICTURES = 8  # clips that are shown
COLUMNS = ("frame", "target", "mask")
FOREGROUND = 0.5  # a score above it is foreground, where a binary mask is wanted


class MotionMask(Objective, Segmenter):
    """One player. The encoder is `model.encoder`; the head is dropped after pretraining."""

    players = ("model",)

    def __init__(self, config: MotionMaskConfig) -> None:
        super().__init__()
        self.config = config
        self.model = MaskNetwork(config)
        self._norms = norm_parameters(self.model)

    def forward(self, player: str, clip: Clip) -> Loss:
        """`loss_factor` times the logistic loss on the pixels of the clip's mask that are certain.

        Terms: logistic (without the factor), certain and positive (shares of such pixels), iou (of the mask made and the trimap, on
        certain pixels). Where the clip has true masks: iou_truth of the mask made, and iou_truth_of_masks of the mask learnt from.

        Raises:
            ValueError: the clip has no mask, or another shape than the config says.
        """
        assert player == "model", f"the motion-mask network has one player, 'model', not {player!r}"
        scores = self._scores(clip)
        target = trimap(scores, self.config.negative, self.config.positive)
        logits = self.model(clip.video[:, :, 0])
        loss = logistic(logits, target, self.config.pixels)
        found = logits.detach() > 0
        terms = {
            "logistic": loss.detach(),
            "certain": target.certain.float().mean(),
            "positive": target.positive.float().mean(),
            "iou": overlap(found, target.positive, target.certain),
        }
        if clip.truth is not None:
            truth = reduced(clip.truth[:, :, 0], self.config.mask_side) > FOREGROUND
            terms |= {"iou_truth": overlap(found, truth), "iou_truth_of_masks": overlap(scores > FOREGROUND, truth)}
        return Loss(self.config.loss_factor * loss, terms)

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """conv5, fc6 and fc7 of each clip, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"masks": one picture for each of the first 8 clips}: the frame, its trimap and the mask made of it, in eval mode.

        Trimap: foreground white, background black, don't care mid-grey. The mask is the soft score, 1 white.
        """
        video = clip.video[:PICTURES]
        target = trimap(self._scores(clip)[:PICTURES], self.config.negative, self.config.positive)
        certain = target.positive.float() - target.negative.float()
        size = (self.config.size, self.config.size)
        tiles = [video[:, :, 0], F.interpolate(certain, size, mode="nearest"), 2 * self.segment(video) - 1]
        picture = grid([[to_uint8(tile.expand(-1, 3, -1, -1)) for tile in tiles]])
        return {"masks": titled(picture, COLUMNS)}

    def segment(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1 h w"]:
        """Soft foreground score of each clip's first frame in [0, 1], float32: the network's mask, bilinearly enlarged; in eval mode.

        Raises:
            ValueError: the frames are not (size, size).
        """
        with looking(self):
            score = self.model(video[:, :, 0]).float().sigmoid()
            return F.interpolate(score, video.shape[3:], mode="bilinear", align_corners=False)

    def encoder(self) -> FrameEncoder:
        """AlexNet up to fc7; shares its parameters with the objective."""
        return self.model.encoder

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """1 for weights and biases of convolutions and linear layers, as in DeepMask; 0 for BatchNorm."""
        return 0.0 if name.removeprefix("model.") in self._norms else 1.0

    def _scores(self, clip: Clip) -> Float[Tensor, "b 1 m m"]:
        """The soft mask of the frame at the side of the network's mask."""
        scores = clip.required_mask("the motion-mask network")
        if clip.video.shape[2] != 1:
            raise ValueError(
                f"the motion-mask network learns from clips of one frame, got {clip.video.shape[2]}: set data.clip.frames=1"
            )
        return reduced(scores[:, :, 0], self.config.mask_side)
