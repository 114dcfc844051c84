"""DrNet as an objective: a game of the scene discriminator and the rest (Denton and Birodkar, 2017, section 3), and its pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.layers.strangers import other_film
from fbm_dist.objectives.drnet.config import TUPLE, DrNetConfig
from fbm_dist.objectives.drnet.frames import shaped, signed_range, unit_range
from fbm_dist.objectives.drnet.losses import reconstruction, scene, similarity, uncertainty
from fbm_dist.objectives.drnet.network import DrNetEncoder, DrNetNetwork, SceneDiscriminator, Still
from fbm_dist.objectives.objective import Loss, Objective

PICTURES = 8  # clips that are shown
STEPS = 7  # of an interpolation, both ends included


class DrNet(Objective):
    """Two players: `critic`, the scene discriminator, and `model`, content encoder, pose encoder and decoder.

    The encoder is `model.encoder`; decoder and critic are dropped after pretraining.
    """

    players = ("critic", "model")

    def __init__(self, config: DrNetConfig) -> None:
        super().__init__()
        self.config = config
        self.critic = SceneDiscriminator(config.pose_dim)
        self.model = DrNetNetwork(config)

    def forward(self, player: str, clip: Clip) -> Loss:
        """The player's share of eq. 5 on `clip`, 4 random frames of each: `critic` L_adversarial(C), `model` the first three terms.

        Terms of the critic: scene (its loss), accuracy (share of pairs it is right about; 1/2: it knows nothing), strangers (1: the batch
        has two films or more; 0: there is nothing to learn). Of the model: reconstruction, similarity, adversarial, without weights.

        Raises:
            ValueError: the clip has another shape than the config says, or in training there is one clip alone.
        """
        assert player in self.players, f"DrNet has the players {self.players}, not {player!r}"
        frames = self._frames(clip)
        return self._scene(frames, clip) if player == "critic" else self._rest(frames)

    def _scene(self, frames: tuple[Tensor, ...], clip: Clip) -> Loss:
        """Section 3, eq. 3. Other frames than the adversarial term looks at: the critic is asked about pairs that it has not just seen."""
        with torch.no_grad():
            first, second = (self.model.encoder.moving(frame) for frame in frames[:2])
        stranger, there = other_film(clip.film)
        same, different = self.critic(first, second), self.critic(first, second[stranger])
        exists = there.any().float()  # one clip has a stranger: so has each
        total = scene(same, different, exists)
        right = ((same > 0).float().mean() + (different <= 0).float().mean()) / 2
        return Loss(total, {"scene": total.detach(), "accuracy": right, "strangers": exists})

    def _rest(self, frames: tuple[Tensor, ...]) -> Loss:
        """Section 3, eq. 1, 2 and 4; the decoder makes the third frame of the content of the first."""
        encoder = self.model.encoder
        still, pose = encoder.still(frames[0]), encoder.moving(frames[2])
        image = self.model.decode(still, pose)
        # After the passes with gradient: autocast would otherwise cache weights that it cast without one.
        with torch.no_grad():
            other, other_pose = encoder.still(frames[1]).content, encoder.moving(frames[3])
        terms = {
            "reconstruction": reconstruction(image, unit_range(frames[2])),
            "similarity": similarity(still.content, other),
            "adversarial": uncertainty(self.critic(pose, other_pose)),
        }
        config = self.config
        total = terms["reconstruction"] + config.alpha * terms["similarity"] + config.beta * terms["adversarial"]
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """content and pose of each clip, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """Three pictures of the first 8 clips, made in eval mode.

        swap: one grid; on the left each clip's first frame, which gives the content, above each clip's last frame, which gives the pose.
        reconstruction: for each clip, its frames above what is made of the first one's content and their own poses.
        interpolation: for each clip, the first frame's content with poses on the way from the first frame's to the last one's.
        """
        video = clip.video[:PICTURES]
        encoder, count = self.model.encoder, video.shape[2]
        with looking(self):
            still = encoder.still(video[:, :, 0])
            poses = [encoder.moving(video[:, :, t]) for t in range(count)]
            made = [self._made(still, pose) for pose in poses]
            way = [torch.lerp(poses[0], poses[-1], i / (STEPS - 1)) for i in range(STEPS)]
            between = [self._made(still, shaped(pose, self.config.pose_code)) for pose in way]
            swap = self._swap(video, still, poses[-1])
        titles = [f"frame {t + 1}" for t in clip.frames[0].sub(clip.frames[0].min()).tolist()]
        strip = grid([[to_uint8(video[:, :, t]) for t in range(count)], made])
        return {"swap": swap, "reconstruction": titled(strip, titles), "interpolation": grid([between])}

    def _made(self, still: Still, pose: Float[Tensor, "b p"]) -> UInt8[Tensor, "b h w 3"]:
        return to_uint8(signed_range(self.model.decode(still, pose)))

    def _swap(
        self, video: Float[Tensor, "n 3 t h w"], still: Still, pose: Float[Tensor, "n p"]
    ) -> UInt8[Tensor, "1 gh gw 3"]:
        """The paper's Figure 3, left: content of the row, pose of the column."""
        number = len(video)
        first, last = to_uint8(video[:, :, 0]), to_uint8(video[:, :, -1])
        rows = [[torch.full_like(first[:1], 255), *last.split(1)]]
        for i in range(number):
            row = Still(still.content[[i] * number], tuple(maps[[i] * number] for maps in still.maps))
            rows.append([first[i : i + 1], *self._made(row, pose).split(1)])
        return grid(rows)

    def encoder(self) -> DrNetEncoder:
        """Content and pose encoder; shares its parameters with the objective."""
        return self.model.encoder

    def _frames(self, clip: Clip) -> tuple[Float[Tensor, "b 3 h w"], ...]:
        check_tuple(clip, self.config.size, self.training)
        return clip.video.unbind(2)


def check_tuple(clip: Clip, size: int, training: bool) -> None:
    """Whether a clip is what is trained on: (b, 3, 4, size, size).

    Raises:
        ValueError: it is not, or BatchNorm would have to take its statistics of a single value.
    """
    expected = (3, TUPLE, size, size)
    if tuple(clip.video.shape[1:]) != expected:
        raise ValueError(
            f"DrNet learns from video of (b, {', '.join(map(str, expected))}), got {tuple(clip.video.shape)}: set "
            f"data.clip.frames={TUPLE}, data.clip.within=20 and data.clip.size={size}, or objective.size"
        )
    if training and len(clip) == 1:
        raise ValueError(
            "one clip gives BatchNorm no statistics of a code; set training.micro_batch to 2 or more (128 where memory allows)"
        )
