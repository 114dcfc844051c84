"""A run's segmenter as one file that needs nothing of this project: `python -m fbm_dist.registry.segmenter RUN FILE.pt2`.

`prepare` makes masks with it (`masks.kind=network masks.network=FILE.pt2`), the segmentation protocol measures it (`networks=[FILE.pt2]`).
What such a file holds says data_tools/segmenter.py.
"""

from __future__ import annotations

import io
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_tools.places import sha256_of, write_atomic
from data_tools.segmenter import opened, side_of
from fbm_dist.config import ConfigError, load
from fbm_dist.objectives.objective import Segmenter
from fbm_dist.registry.exports.agreement import check_agrees
from fbm_dist.registry.exports.program import bare
from fbm_dist.schema import InitFrom, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.initialization import initialize

CONFIG = "config.yaml"
ABOUT = "segmenter.json"  # in the archive, for people: where it comes from
NEAR = 1e-3  # of a score: how far the file may be from the objective that it was made of
ALONE = World(0, 0, 1, 1, torch.device("cpu"))


class OneFrame(nn.Module):
    """A segmenter of single frames as the files' contract has it: (1, 3, s, s) in [-1, 1] -> scores (1, 1, h, w)."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frame: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 1 h w"]:
        """The score of a clip of this one frame."""
        return self.segmenter.segment(frame.unsqueeze(2))


def export_segmenter(folder: Path, file: Path) -> str:
    """Write the segmenter of a run's newest checkpoint to `file`, whole or not at all; returns the file's sha256.

    The file is read back and held against the objective before it gets its name.

    Args:
        folder: of a run of a family that segments single frames, with its checkpoints.
        file: NAME.pt2.
    Raises:
        ValueError: there is no such run, or it segments no single frames; in one line.
    """
    if file.suffix != ".pt2":
        raise ValueError(f"{file}: a segmenter's file ends in .pt2")
    network, side, about = _network(folder)
    with torch.no_grad():
        program = bare(torch.export.export(network, (torch.zeros(1, 3, side, side),), strict=False))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about, indent=1)})
    _check(buffer.getvalue(), network, side, str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, buffer.getvalue())
    return sha256_of(file)


def _network(folder: Path) -> tuple[OneFrame, int, dict[str, Any]]:
    """The segmenter of a run in eval mode, the side of its frames, and what is to be said about it."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: there is no {CONFIG}; give a run's folder, with its checkpoints")
    run = load(Run, path)
    objective = run.objective.build()
    if not isinstance(objective, Segmenter):
        raise ValueError(f"{folder}: its objective, {run.objective.family}, is no segmenter; give a run of motion_mask")
    frames, side = (getattr(run.objective, key) for key in ("frames", "size"))
    if frames != 1:
        raise ValueError(
            f"{folder}: {run.objective.family} segments clips of {frames} frames, and a segmenter's file is shown one; "
            "give a run of motion_mask"
        )
    loaded = initialize(objective, InitFrom(source=str(folder)), ALONE)
    if len(loaded.names) < loaded.num_tensors:
        raise ValueError(
            f"{folder}: {loaded.file} has {len(loaded.names)} of the {loaded.num_tensors} tensors; "
            "give a run's folder, with its checkpoints: an encoder alone has no head"
        )
    about = {
        "run": run.run.name or folder.resolve().name,
        "objective": run.objective.model_dump(mode="json"),
        "weights_sha256": loaded.sha256,
        "size": side,
        "value_range": [-1.0, 1.0],
        "torch": str(torch.__version__),
    }
    return OneFrame(objective).eval(), side, about


def _check(content: bytes, network: OneFrame, side: int, name: str) -> None:
    """Whether what is read back keeps the contract and gives what the objective gives."""
    program = opened(content, name)
    assert side_of(program, name) == side
    frame = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    call = program.module()
    check_agrees(lambda x: {"score": call(x)}, lambda x: {"score": network(x)}, [frame], name, NEAR)


def main(arguments: list[str] | None = None) -> int:
    """Export; exit status 0 good, 1 cannot be done, 2 a config error."""
    parser = ArgumentParser(prog="python -m fbm_dist.registry.segmenter", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, with its checkpoints")
    parser.add_argument("file", type=Path, metavar="FILE.pt2")
    given = parser.parse_args(arguments)
    try:
        digest = export_segmenter(given.run, given.file)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.file}: sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
