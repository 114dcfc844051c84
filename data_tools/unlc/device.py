"""Where `prepare` computes uNLC: the NumPy method on the CPU, or the tensors on a GPU that several worker processes share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np

from data_tools.execution.processes import WORKER
from data_tools.schema import Masks, Prepare

PATIENCE = 300.0  # seconds that the look for a GPU may take: a driver may have to start first


def method(masks: Masks) -> Callable[..., np.ndarray]:
    """Scores (t, h, w) in [0, 1] of a shot's frames, uint8 (t, h, w, 3), where the settings say; it takes an `opinion` beside them.

    Raises:
        RuntimeError: masks.device=cuda, and this process sees no GPU.
    """
    if masks.device == "cpu":
        from data_tools.unlc import motion_masks

        return partial(motion_masks, settings=masks.unlc)
    from data_tools.unlc.tensors.masks import motion_masks as on_device

    return partial(on_device, settings=masks.unlc, device=own_gpu(), flow=masks.flow)


def own_gpu() -> Any:
    """The `torch.device` of this worker: workers are dealt to the GPUs of their machine in turn.

    Raises:
        RuntimeError: there is none.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise RuntimeError("masks.device=cuda, and this process sees no GPU")
    return torch.device("cuda", int(os.environ.get(WORKER, "0")) % count)


def with_device(settings: Prepare, note: Callable[[str], None]) -> Prepare:
    """The settings with who makes the optical flow, if masks are computed on a GPU: from here on it is part of what shapes the samples.

    The look at the GPU is a process of its own, so that this one holds no memory of it. On a Ray cluster others have the GPUs.

    Args:
        note: told that there is no engine.
    Raises:
        ValueError: there is no GPU, or not the engine that the settings name.
    """
    masks = settings.masks
    if masks.device == "cpu":
        return settings
    if settings.executor == "ray":
        if masks.flow is None:
            raise ValueError(
                "masks.device=cuda on a Ray cluster: say who makes the flow, masks.flow=engine or masks.flow=dis"
            )
        return settings
    found = _look(masks)
    if not found["gpus"]:
        raise ValueError(
            f"masks.device=cuda, and no GPU is here ({found['why']}); give masks.device=cpu, or a machine with one"
        )
    if masks.flow is None and found["why"]:
        note(f"{found['why']}; DIS on the CPU makes the flow")
    if masks.flow == "engine" and found["why"]:
        raise ValueError(f"masks.flow=engine: {found['why']}; give masks.flow=dis")
    flow = masks.flow or ("dis" if found["why"] else "engine")
    return settings.model_copy(update={"masks": masks.model_copy(update={"flow": flow})})


def gpus_of(settings: Prepare) -> int:
    """How many GPUs of this machine its workers share by these settings; 0: they compute masks on the CPU."""
    return min(_look(settings.masks)["gpus"], settings.num_workers) if settings.masks.device == "cuda" else 0


def _look(masks: Masks) -> dict[str, Any]:
    """How many GPUs there are, and why there is no engine, if there is none."""
    side = str(masks.unlc.motion.size)
    command = [sys.executable, "-m", "data_tools.unlc.device", side]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        seen = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"gpus": 0, "why": f"no answer for {PATIENCE:g} s"}
    lines = seen.stdout.splitlines()
    if seen.returncode or not lines:
        words = seen.stderr.strip().splitlines() or [f"exit status {seen.returncode}"]
        return {"gpus": 0, "why": words[-1].strip()[:200]}
    return cast(dict[str, Any], json.loads(lines[-1]))


def _main(side: int) -> None:
    import torch

    found: dict[str, Any] = {"gpus": torch.cuda.device_count(), "why": ""}
    if found["gpus"]:
        from data_tools.unlc.tensors.engine import opened

        try:
            opened(torch.device("cuda", 0), (side, side))
        except RuntimeError as error:
            found["why"] = str(error)
    else:
        found["why"] = "torch sees none" if torch.version.cuda else "this torch is built without CUDA"
    print(json.dumps(found))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
