"""An encoder as a program of torch.export: any number of clips, raw weights, nothing in it that is pickled or names a machine."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fbm_dist.inference.archive import screened
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry.exports.agreement import random_clips
from fbm_dist.registry.folder import Description

ABOUT = "encoder.json"  # in the archive, for people: what it is
TRACED = 2  # clips; torch.export takes 0 and 1 for constants


class Features(nn.Module):
    """The encoder below another name: a GraphModule has attributes of its own (`code`), which an encoder's parts may be called, too."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Named features."""
        return dict(self.encoder(video))


@torch.no_grad()
def traced(encoder: Encoder, description: Description) -> ExportedProgram:
    """The encoder's graph, with the number of clips left open.

    Args:
        encoder: on the CPU, in eval mode.
    Raises:
        ValueError: torch.export cannot follow it.
    """
    shapes = {"video": {0: Dim("batch", min=1)}}
    clips = random_clips(description, TRACED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an LSTM's flat weights, which are parameters all the same
            program = torch.export.export(Features(encoder), (clips,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of any kind: the tracer runs the model's own code
        family = description.objective.family
        raise ValueError(
            f"the {family} encoder cannot be exported: {' '.join(str(error).split())[:200]}; a defect, please report it"
        ) from None
    return bare(program)


def bare(program: ExportedProgram) -> ExportedProgram:
    """Without what would be pickled (the example clips), and without the names of this machine's source files."""
    program._example_inputs = None  # type: ignore[assignment]  # there is no other way to save a program without them
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(key, None)
    return program


def pt2_of(program: ExportedProgram, about: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a .pt2 file, which hold no pickle.

    Raises:
        ValueError: they would hold something that `fbm_dist.inference` refuses to read.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(dict(about), indent=1)})
    return screened(buffer.getvalue(), name)
