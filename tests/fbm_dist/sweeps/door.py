"""A stand-in for launch/pretrain.py that starts at once: the same files, signals and exit codes, and a loss that is a formula.

A step lasts training.hang_timeout milliseconds. The loss is |log10(lr) + 2| + 1 / step, best at lr=0.01.
What goes wrong is told by run.seed: 13 is killed at step 3 of its first start, 14 at step 3 of every start, 15 has no finite
gradients from step 2 on, 16 hangs after step 1 and hears no signal, 17 ends with an error, 18 waits until two trials have begun,
19 has the third trial wait at step 5 until it is asked to stop.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

asked = False


def main(config: str) -> int:
    run = YAML(typ="safe", pure=True).load(Path(config).read_text())
    folder = Path(run["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('STAND_IN_NODE', 'here')}\n")
    if (folder / "finished.json").exists():
        return 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN if run["run"]["seed"] == 16 else heard)
    steps = [json.loads(line) for line in lines(folder)][-1:]
    done = steps[0]["step"] if steps else 0
    pause = run["training"]["hang_timeout"] / 1000
    print(f"goes on from step {done}", flush=True)
    for step in range(done + 1, run["training"]["steps"] + 1):
        time.sleep(pause)
        code = misfortune(run, folder, step)
        if code is not None:
            return code
        with (folder / "metrics.jsonl").open("a") as file:
            loss = None if run["run"]["seed"] == 15 and step > 1 else value(run, step)
            file.write(json.dumps({"step": step, "time": time.time(), "loss": loss, "seconds": step * pause}) + "\n")
        if asked:
            print(f"stopped by a signal after step {step}", flush=True)
            return 75
    (folder / "encoder").mkdir(exist_ok=True)
    (folder / "finished.json").write_text("{}")
    return 0


def heard(number: int, frame: Any) -> None:
    global asked
    asked = True


def lines(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def value(run: dict[str, Any], step: int) -> float:
    return abs(math.log10(run["optimizer"]["lr"]) + 2) + 1 / step


def misfortune(run: dict[str, Any], folder: Path, step: int) -> int | None:
    seed = run["run"]["seed"]
    starts = len((folder / "starts.txt").read_text().splitlines())
    if step == 3 and (seed == 14 or (seed == 13 and starts == 1)):
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 15 and step == 4:
        print(
            "error: step 4: 3 updates in a row were skipped (3 x gradient not finite); lower optimizer.lr",
            file=sys.stderr,
        )
        return 1
    if seed == 16 and step == 2:
        time.sleep(600)
    while seed == 18 and len(list(folder.parent.glob("*/starts.txt"))) < 2 and not asked:
        time.sleep(0.1)
    while seed == 19 and step == 5 and folder.name == "0002" and not asked:
        time.sleep(0.1)
    if seed == 17 and step == 2:
        print("error: no disk like this one", file=sys.stderr)
        return 1
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
