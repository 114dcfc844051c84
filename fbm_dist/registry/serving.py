"""The encoder as an MLflow pyfunc, by models-from-code: MLflow runs this file when the model is loaded, so nothing is pickled."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import torch

from fbm_dist.registry.folder import read_encoder

CLIPS_AT_ONCE = 16  # bounds the memory of a large request


class ServedEncoder(mlflow.pyfunc.PythonModel):
    """float32 video (b, 3, t, h, w) in [-1, 1] -> {feature group: float32 (b, d)}."""

    def load_context(self, context: Any) -> None:
        """Read the encoder that lies beside this file in the model's artifacts; on a GPU where there is one."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.encoder = read_encoder(context.artifacts["encoder"], device=self.device)

    @torch.inference_mode()
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Named feature vectors of each clip."""
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, len(model_input), CLIPS_AT_ONCE):
            video = torch.from_numpy(np.ascontiguousarray(model_input[start : start + CLIPS_AT_ONCE], dtype=np.float32))
            features = self.encoder(video.to(self.device))
            parts.append({name: value.float().cpu().numpy() for name, value in features.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


mlflow.models.set_model(ServedEncoder())
