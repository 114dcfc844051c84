"""The dominant motion of a batch of fields, beside the one-field functions of the room above."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_tools.unlc import dominant as one
from data_tools.unlc.config import UNLC, Motion
from data_tools.unlc.tensors.dominant import deviation, fit_plane, median


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    """Pans, zooms and turns with an object and noise; a static one; a translation; chaos."""
    generator = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 53), indexing="ij")
    found = []
    for strength in range(5):
        field = np.stack([4 + 2 * x - 1.5 * y + strength * x * x, -3 + 1.5 * x + 2 * y + strength * x * y], -1)
        field[10:24, 12:26] += (3, -4)
        found.append(field + generator.normal(scale=0.1 * strength, size=field.shape))
    found.append(np.zeros_like(field))
    found.append(np.broadcast_to((5, 0.01), field.shape))
    found.append(generator.normal(scale=8, size=field.shape))
    return np.stack(found).astype(np.float32)


@pytest.mark.parametrize(
    "settings", [Motion(), Motion(power=2.0), UNLC.paper().motion], ids=["plane", "squared", "histogram"]
)
def test_equals_one_field_at_a_time(fields: np.ndarray, settings: Motion) -> None:
    deviations, found = deviation(torch.from_numpy(fields), settings)
    for field, ours, dominant in zip(fields, deviations, found, strict=True):
        expected = one.deviation(field, settings)
        assert bool(dominant) == (expected is not None)
        if expected is not None:
            np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=2e-4)
    assert 0 < found.sum() < len(fields), "both answers occur"


def test_the_plane_fit_ignores_an_object(fields: np.ndarray) -> None:
    residual = (torch.from_numpy(fields[:1]) - fit_plane(torch.from_numpy(fields[:1]))).norm(dim=-1)[0]
    assert residual[:8].max() < 0.1
    assert residual[12:22, 14:24].numpy() == pytest.approx(5, abs=0.1)


def test_fields_do_not_mix(fields: np.ndarray) -> None:
    together, _ = deviation(torch.from_numpy(fields), Motion())
    alone, _ = deviation(torch.from_numpy(fields[3:4]), Motion())
    torch.testing.assert_close(together[3:4], alone, rtol=0, atol=1e-4)


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    assert median(torch.tensor([[4.0, 1, 3, 2], [0, 0, 8, 9]])).tolist() == [2.5, 4.0]
