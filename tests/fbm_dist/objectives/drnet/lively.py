"""Networks as a run leaves them, and clips, of which every code and picture is another: fresh ones make one of all in eval mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.objectives.drnet.autoencoder import CodeNetwork
from fbm_dist.objectives.drnet.network import DrNetNetwork


def enliven_(network: DrNetNetwork | CodeNetwork, frames: Float[Tensor, "n 3 h w"]) -> None:
    """Other kernels than were drawn, those of the image by 10 (strong colours), and BatchNorm's statistics of `frames`.

    With a mean of 0 and a variance of 1, which fresh ones have, nothing is left of what small kernels say.
    """
    modes = {module: module.training for module in network.modules()}
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.train()
    for norm in norms:
        norm.momentum = 1.0  # of the last batch alone
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
        network.decoder.ups[-1].get_parameter("0.weight").mul_(10)
        network.decode(network.encoder.still(frames), network.encoder.moving(frames))
    for norm in norms:
        norm.momentum = 0.1
    for module, training in modes.items():
        module.training = training


def cuts(make_clip: Any, batch: int, frames: int) -> Clip:
    """Clips whose every frame is of another film."""
    film = make_clip(batch * frames, frames=1).video
    return replace(make_clip(batch, frames=frames), video=film.squeeze(2).unflatten(0, (batch, frames)).transpose(1, 2))


def apart(frames: Tensor, dim: int) -> float:
    """Of any two along `dim`, how far the two that are most alike differ where they differ most."""
    parts = frames.double().unbind(dim)
    return min(float((a - b).abs().max()) for i, a in enumerate(parts) for b in parts[:i])
