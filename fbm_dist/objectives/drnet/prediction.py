"""An LSTM says the next pose over a frozen DrNet; the decoder makes frames of it (Denton and Birodkar, 2017, section 3.1)."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.drnet.autoencoder import CodeEncoder, CodeNetwork
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.drnet.frames import as_frames, shaped, signed_range
from fbm_dist.objectives.drnet.network import DrNetEncoder, DrNetNetwork, check_video
from fbm_dist.objectives.objective import Encoder, Loss, Objective

PICTURES = 8  # clips that are shown
COLUMNS = 10  # frames of each, at most
State = tuple[Tensor, Tensor]  # of the LSTM: hidden and cell, (layers, b, hidden) each


class PosePredictor(nn.Module):
    """Pose and content -> the next pose: linear, LSTM layers, linear, tanh, and unit length where poses have it (eq. 6, 7)."""

    def __init__(self, config: DrNetPredictionConfig) -> None:
        super().__init__()
        trunk = config.trunk
        if isinstance(trunk, DrNetConfig):
            moving, still, self.code = trunk.pose_dim, trunk.content_dim, trunk.pose_code
        else:
            moving, still, self.code = trunk.content_dim + trunk.pose_dim, 0, trunk.content_code
        self.embedding = nn.Linear(moving + still, config.hidden)
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, batch_first=True)
        self.output = nn.Linear(config.hidden, moving)

    def forward(
        self, poses: Float[Tensor, "b t p"], content: Float[Tensor, "b c"], state: State | None = None
    ) -> tuple[Float[Tensor, "b t p"], State]:
        """After each pose the next one; and the LSTM's state, to go on from. In float32 also under autocast.

        Args:
            content: the same at every step.
            state: of the steps before; None: these are the first.
        """
        # Small sums that feed themselves for hundreds of steps; and torch has no bf16 LSTM on every device. An exported program has
        # no autocast, and would call this block as a function of its own, which ONNX does not know.
        exporting = torch.compiler.is_exporting()
        with nullcontext() if exporting else torch.autocast(poses.device.type, enabled=False):
            given = torch.cat([poses.float(), content.float()[:, None].expand(-1, poses.shape[1], -1)], dim=2)
            hidden, state = self.lstm(self.embedding(given), state)
            return shaped(self.output(hidden).tanh(), self.code), state


def trunk_network(trunk: DrNetConfig | DrNetAutoencoderConfig) -> DrNetNetwork | CodeNetwork:
    """Encoder and decoder of what is predicted over, with fresh weights."""
    return DrNetNetwork(trunk) if isinstance(trunk, DrNetConfig) else CodeNetwork(trunk)


class PredictionEncoder(Encoder):
    """What is registered: the frozen encoder together with the LSTM, whose state after the last frame is the feature `motion`."""

    def __init__(
        self,
        config: DrNetPredictionConfig,
        trunk: DrNetEncoder | CodeEncoder | None = None,
        predictor: PosePredictor | None = None,
    ) -> None:
        """`trunk` and `predictor`: to be shared; None: fresh ones."""
        super().__init__()
        self.config = config
        self.trunk = trunk_network(config.trunk).encoder if trunk is None else trunk
        self.predictor = PosePredictor(config) if predictor is None else predictor
        self.trunk.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PredictionEncoder:
        """The trunk stays in eval mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def codes(self, video: Float[Tensor, "b 3 t h w"], n_past: int) -> tuple[Tensor, Tensor]:
        """Poses (b, t, p) of all frames, and the content (b, c) of frame `n_past` (the first is 1), both constants."""
        with torch.no_grad():
            poses = self.trunk.moving(as_frames(video)).unflatten(0, (video.shape[0], video.shape[2]))
            return poses, self.trunk.still(video[:, :, n_past - 1]).content

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, frames, size, size) in [-1, 1] -> {"content": b content_dim, "pose": b frames*pose_dim, "motion": b hidden}.

        content: of frame n_past, as while training; over a single encoder there is none. motion: the LSTM's top layer after the last
        frame, all that it knows of how the pose changes.

        Raises:
            ValueError: the video has another shape.
        """
        check_video(video, self.config.frames, self.config.size)
        poses, content = self.codes(video, self.config.n_past)
        _, (hidden, _) = self.predictor(poses, content)
        found = {"content": content, "pose": poses.flatten(1), "motion": hidden[-1]}
        return {name: value for name, value in found.items() if value.shape[1]}


class DrNetPrediction(Objective):
    """One player, and only `predictor` learns: `model`, encoder and decoder of a DrNet run (`init_from`), is frozen, in eval mode."""

    players = ("model",)

    def __init__(self, config: DrNetPredictionConfig) -> None:
        super().__init__()
        self.config = config
        self.model = trunk_network(config.trunk)
        self.predictor = PosePredictor(config)
        self.model.requires_grad_(False)
        self._fresh = _sums(self.model)  # until the trunk is known to hold other weights
        self.train()

    def train(self, mode: bool = True) -> DrNetPrediction:
        """The trunk stays in eval mode: a code does not depend on the other clips of a batch."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, player: str, clip: Clip) -> Loss:
        """Mean squared error of the pose after each frame but the last, all given true poses before (teacher forcing).

        Terms: pose (the loss), and copy: the same error for who says that the pose stays as it is. Below it prediction begins.

        Raises:
            ValueError: the clip has another shape than the config says, or the trunk was never trained.
        """
        assert player == "model", f"prediction has one player, 'model', not {player!r}"
        self._check_trunk()
        encoder = self.encoder()
        check_video(clip.video, self.config.frames, self.config.size)
        poses, content = encoder.codes(clip.video, self.config.n_past)
        following, _ = self.predictor(poses[:, :-1], content)
        total = F.mse_loss(following, poses[:, 1:])
        return Loss(total, {"pose": total.detach(), "copy": F.mse_loss(poses[:, :-1], poses[:, 1:])})

    def generate(self, video: Float[Tensor, "b 3 t h w"], n_past: int, steps: int) -> Float[Tensor, "b 3 {steps} h w"]:
        """The `steps` frames that follow the first `n_past` of `video`, in [-1, 1], float32; made in eval mode without gradient.

        Each predicted pose is what the next one is predicted from; the content is that of the last frame seen. What follows in
        `video` is not looked at, and its length need not be the config's.

        Raises:
            ValueError: the video has fewer than `n_past` frames.
        """
        if not 1 <= n_past <= video.shape[2]:
            raise ValueError(f"n_past={n_past} of a video of {video.shape[2]} frames; give 1 to {video.shape[2]}")
        frames = []
        with looking(self):
            still = self.model.encoder.still(video[:, :, n_past - 1])
            poses, content = self.encoder().codes(video[:, :, :n_past], n_past)
            following, state = self.predictor(poses, content)
            for _ in range(steps):
                pose = following[:, -1:]
                frames.append(signed_range(self.model.decode(still, pose[:, 0])))
                following, state = self.predictor(pose, content, state)
        return torch.stack(frames, dim=2)

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """content, pose and motion of each clip."""
        return self.encoder()(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"prediction": one picture for each of the first 8 clips}: the last frame seen and those after it, as they are above what the
        LSTM's poses and that frame's content make; below the frame seen stands what its own pose makes."""
        video, past = clip.video[:PICTURES], self.config.n_past
        with looking(self):
            encoder, last = self.model.encoder, video[:, :, past - 1]
            seen = signed_range(self.model.decode(encoder.still(last), encoder.moving(last)))
        made = torch.cat([seen[:, :, None], self.generate(video, past, video.shape[2] - past)], dim=2)
        count = min(COLUMNS, made.shape[2])
        chosen = [round(i * (made.shape[2] - 1) / (count - 1)) for i in range(count)]
        rows = [[to_uint8(row[:, :, t]) for t in chosen] for row in (video[:, :, past - 1 :], made)]
        return {"prediction": titled(grid(rows), ["seen", *(f"+{t}" for t in chosen[1:])])}

    def encoder(self) -> PredictionEncoder:
        """Trunk and LSTM; shares its parameters with the objective."""
        return PredictionEncoder(self.config, self.model.encoder, self.predictor)

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """None for vectors, as ever, and for what is frozen."""
        return 0.0 if parameter.ndim <= 1 or not parameter.requires_grad else 1.0

    def _check_trunk(self) -> None:
        """All kernels have come from somewhere. Fresh ones would stay as they are, and the loss would fall: it says nothing of frames."""
        if not self._fresh:
            return
        now = _sums(self.model)
        left = [n for n, value in self._fresh.items() if math.isclose(now.get(n, value), value, rel_tol=1e-9)]
        # ZeRO-3 has shared the kernels out by now; then statistics, which it leaves whole, must do.
        counters = [buffer for name, buffer in self.model.named_buffers() if name.endswith("num_batches_tracked")]
        if left and (now or not any(bool(counter) for counter in counters)):
            raise ValueError(
                f"the frozen DrNet has never been trained: {len(left)} of its {len(self._fresh)} kernels are as they were drawn, "
                f"e.g. {left[0]!r}; give init_from, the folder of a run of the family {self.config.trunk.family!r} that has the "
                "settings of objective.trunk"
            )
        self._fresh = {}


def _sums(module: nn.Module) -> dict[str, float]:
    """One number for each kernel that is here as a whole."""
    return {
        name: float(p.detach().double().sum())
        for name, p in module.named_parameters()
        if p.ndim > 1 and p.numel() and not p.is_meta
    }
