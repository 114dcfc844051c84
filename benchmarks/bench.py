"""Runs the project's own commands in a folder, each once: films, pretrainings, evaluations, other benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ALONE = ("tracking.mlflow=false", "tracking.register_as=null", "training.engine=torch", "training.preflight=off")
# What `synthesize` is told, or a folder of films that are there; and what `prepare` is told.
Collection = tuple[tuple[str, ...] | Path, tuple[str, ...]]
Found = dict[str, dict[str, dict[str, tuple[float, float]]]]  # encoder -> table -> column -> mean, spread


@dataclass(frozen=True)
class Pretraining:
    """A run of launch/pretrain.py: the folder's name, its collection, config and overrides."""

    name: str
    collection: str
    config: str
    overrides: tuple[str, ...]


class Bench:
    """Runs the product's commands in a folder, each once."""

    def __init__(self, folder: Path, jobs: int, collections: Mapping[str, Collection]) -> None:
        self.folder, self.jobs, self.collections = folder.resolve(), jobs, collections
        self.folder.mkdir(parents=True, exist_ok=True)

    def collection(self, name: str) -> Path:
        """Shards of films, which are made where they are not there yet."""
        made, prepared = self.collections[name]
        shards = self.folder / f"{name}-shards"
        if isinstance(made, Path):
            films = made
        else:
            films = self.folder / f"{name}-films"
            synthesize = ("-m", "data_tools", "synthesize", f"output={films}", *made)
            self._once(f"{name}-films", films / "labels.csv", *synthesize)  # which is written last
        prepare = ("-m", "data_tools", "prepare", *prepared, f"input={films}", f"output={shards}")
        self._once(f"{name}-shards", shards / "dataset.json", *prepare)
        return shards

    def pretrain(self, runs: list[Pretraining]) -> list[Path]:
        """The runs' folders."""
        shards = {name: self.collection(name) for name in sorted({run.collection for run in runs})}

        def one(run: Pretraining) -> Path:
            folder = self.folder / run.name
            own = (f"data.path={shards[run.collection]}", f"run.folder={folder}", *ALONE, *run.overrides)
            config = f"configs/pretrain/{run.config}.yaml"
            self._once(run.name, folder / "finished.json", "launch/pretrain.py", config, *own)
            return folder

        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(one, runs))

    def evaluate(self, name: str, config: str, collection: str, runs: list[Path], *overrides: str) -> Found:
        """Means and spreads of a protocol for `random`, each run by its folder's name, and `chance`."""
        output = self.folder / f"{name}-results"
        first, *others = map(str, runs)
        self._run(
            output.name,
            "launch/evaluate.py",
            f"configs/evaluate/{config}.yaml",
            f"encoder={first}",
            f"compare_with=[{','.join(['random', *others])}]",
            f"data.path={self.collection(collection)}",
            f"output={output}",
            "tracking.mlflow=false",
            *overrides,
        )
        results = json.loads((output / "results.json").read_text())
        names = {subject["name"]: Path(subject["uri"]).name for subject in results["subjects"]}
        found: Found = {}
        for table in results["tables"]:
            for row in table["rows"]:
                encoder = names.get(row["name"], "chance" if row["kind"] == "chance" else None)
                if encoder is not None:
                    cells = {column: (cell["value"]["mean"], cell["spread"]) for column, cell in row["cells"].items()}
                    found.setdefault(encoder, {})[table["name"]] = cells
        return found

    def script(self, name: str, *command: str) -> dict[str, Any]:
        """The last line of another benchmark, which is JSON."""
        self._once(name, self.folder / f"{name}.finished", *command, makes_mark=False)
        found: dict[str, Any] = json.loads((self.folder / f"{name}.out").read_text().splitlines()[-1])
        return found

    def _once(self, name: str, mark: Path, *command: str, makes_mark: bool = True) -> None:
        """Run what has not made its mark yet; what another command made is not taken."""
        note = self.folder / f"{name}.command"
        if mark.exists() and note.exists() and note.read_text() != "\n".join(command):
            sys.exit(f"{mark.parent} was made by another command ({note}); give another --folder, or remove it")
        if not mark.exists():
            note.write_text("\n".join(command))
            self._run(name, *command)
            if not makes_mark:
                mark.touch()
            elif not mark.exists():
                sys.exit(f"{name} was stopped before its end; the same command goes on")

    def _run(self, name: str, *command: str) -> None:
        """What the command prints is kept in NAME.out and NAME.log."""
        print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
        cpu = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        log = self.folder / f"{name}.log"
        with (self.folder / f"{name}.out").open("w") as out, log.open("w") as errors:
            code = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=os.environ | cpu, stdout=out, stderr=errors
            ).returncode
        if code:
            sys.exit(f"{name} ended with {code}; what it said is in {log}")
