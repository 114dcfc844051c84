"""What is in a checkpoint's files: every rank's stretches, the full weights that are put together from them, and how they are read.

    objective.safetensors        full fp32 weights, and buffers averaged over the ranks: what everybody else reads
    ema.safetensors              the same with averaged weights, where the run keeps an average
    optimizer-00000.safetensors  rank 0's stretches of the optimizer's state, as "kind|parameter|start"
    rank-00000.pt                rank 0's own buffers (BatchNorm statistics) and random generators
    complete.json                the manifest, written last

Nothing in it depends on the engine, the ZeRO stage or the number of processes: any other run reads the stretches that it needs.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fbm_dist.training.engines.places import MASTER
from fbm_dist.training.optimization.ema import EMA

WEIGHTS = "objective.safetensors"
AVERAGE = "ema.safetensors"
Pieces = Mapping[tuple[str, str, int], Tensor]  # (kind, parameter's full name, start) -> flat values


@dataclass(frozen=True)
class Part:
    """One rank's share of a checkpoint, on the CPU and its own: training may go on while it is written."""

    rank: int
    pieces: dict[tuple[str, str, int], Tensor]
    buffers: dict[str, Tensor]
    random: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write it below `folder`; the weights' stretches only until `assemble` has put them together."""
        weights = {key: value for key, value in self.pieces.items() if key[0] in (MASTER, EMA)}
        state = {key: value for key, value in self.pieces.items() if key not in weights}
        for name, pieces in (("weights", weights), ("optimizer", state)):
            save_file(
                {_text(key): value for key, value in pieces.items()}, folder / f"{name}-{self.rank:05d}.safetensors"
            )
        # BatchNorm's running statistics differ from rank to rank.
        held = io.BytesIO()  # torch.save itself reports a full disk as an "unexpected pos"
        torch.save({"buffers": self.buffers, "random": self.random}, held)
        (folder / f"rank-{self.rank:05d}.pt").write_bytes(held.getbuffer())


def take(rank: int, pieces: Pieces, working: nn.Module, random: dict[str, Any], copy: bool) -> Part:
    """This rank's part as it is now. `copy`: what already lies on the CPU is copied, so that training may go on."""
    held = {key: value.detach().to("cpu", copy=copy) for key, value in pieces.items()}
    buffers = {name: b.detach().to("cpu", copy=copy) for name, b in working.named_buffers()}
    return Part(rank, held, buffers, random)


def assemble(folder: Path, ranks: int, shapes: Mapping[str, torch.Size], fixed: Mapping[str, Tensor]) -> None:
    """Put objective.safetensors (and ema.safetensors) together from the ranks' stretches, which are removed. One process calls it.

    Args:
        shapes: of the trained parameters, by name.
        fixed: parameters that are not trained.
    Raises:
        ValueError: a parameter is not covered by the stretches.
    """
    paths = [folder / f"weights-{rank:05d}.safetensors" for rank in range(ranks)]
    buffers = _mean([torch.load(folder / f"rank-{rank:05d}.pt", weights_only=True)["buffers"] for rank in range(ranks)])
    stretches = Stretches(paths)
    for kind, name in ((MASTER, WEIGHTS), (EMA, AVERAGE)):
        if kind in stretches.kinds:
            state = {key: stretches.read(kind, key, 0, shape.numel()).view(shape) for key, shape in shapes.items()}
            save_file({**state, **{k: v.contiguous() for k, v in fixed.items()}, **buffers}, folder / name)
    for path in paths:
        path.unlink()


class Stretches:
    """The stretches of several files as one flat tensor for each kind and parameter; read lazily, as far as asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [safe_open(path, framework="pt") for path in paths]
        self._held: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
        for number, file in enumerate(self._files):
            for text in file.keys():  # noqa: SIM118 - not a dict
                kind, name, start = text.split("|")
                self._held[kind, name].append((int(start), number, text))
        self.kinds = tuple(sorted({kind for kind, _ in self._held}))

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """Elements [start, start + length) of the flattened parameter's tensor of that kind.

        Raises:
            ValueError: they are not all there.
        """
        values, found = torch.empty(length), 0
        for first, number, text in self._held[kind, name]:
            view = self._files[number].get_slice(text)
            end = first + view.get_shape()[0]
            low, high = max(start, first), min(start + length, end)
            if low < high:
                values[low - start : high - start] = view[low - first : high - first]
                found += high - low
        if found != length:
            raise ValueError(f"the checkpoint holds {found} of {length} values of {name} ({kind})")
        return values


class Saved:
    """A whole checkpoint, read by kind, parameter and stretch (`places.Read`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stretches = Stretches(sorted(folder.glob("optimizer-*.safetensors")))
        self._whole = {MASTER: safe_open(folder / WEIGHTS, framework="pt")}
        if (folder / AVERAGE).exists():
            self._whole[EMA] = safe_open(folder / AVERAGE, framework="pt")
        self.averaged = EMA in self._whole

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """See `Stretches.read`; weights and their average come from the whole files."""
        if kind in self._whole:
            return self._whole[kind].get_tensor(name).view(-1)[start : start + length]
        return self._stretches.read(kind, name, start, length)

    def buffers(self, rank: int, ranks: int) -> dict[str, Tensor]:
        """This rank's buffers; where the checkpoint has another number of ranks, their mean."""
        if ranks == self.ranks:
            return dict(torch.load(self._own(rank), map_location="cpu", weights_only=True)["buffers"])
        file = self._whole[MASTER]
        names = torch.load(self._own(0), map_location="cpu", weights_only=True)["buffers"]
        return {name: file.get_tensor(name) for name in names}

    def random(self, rank: int, ranks: int) -> dict[str, Any] | None:
        """The states of this rank's random generators; None where the checkpoint has another number of ranks."""
        if ranks != self.ranks:
            return None
        return dict(torch.load(self._own(rank), map_location="cpu", weights_only=True)["random"])

    @property
    def ranks(self) -> int:
        """That wrote the checkpoint."""
        return len(list(self.folder.glob("rank-*.pt")))

    def _own(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.pt"


def _text(key: tuple[str, str, int]) -> str:
    return "|".join(map(str, key))


def _mean(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of floating-point buffers the mean over the ranks, of others rank 0's."""
    first = rows[0]
    return {
        name: torch.stack([row[name] for row in rows]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }
