"""Who makes the flow: DIS gives what it gave, the engine's graph is what DALI takes, and what happens where there is none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from data_tools.flow import OpticalFlow
from data_tools.unlc.config import Motion
from data_tools.unlc.tensors import engine
from data_tools.unlc.tensors.flow import dis, flow_of
from tests.moving_disc import texture

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def shifted(shift: int, number: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Grey pairs whose content moves `shift` pixels to the right."""
    ground = texture(100, 240, 0, (120, 120, 120))[..., 0]
    source, target = ground[:, 40:173], ground[:, 40 - shift : 173 - shift]
    return np.repeat(source[None], number, 0).copy(), np.repeat(target[None], number, 0).copy()


def test_dis_is_the_flow_of_the_other_method() -> None:
    sources, targets = shifted(3)
    found = dis(Motion())(torch.from_numpy(sources), torch.from_numpy(targets))
    flow = OpticalFlow("fast", 0)
    np.testing.assert_array_equal(found.numpy(), np.stack([flow(sources[0], targets[0])] * 3))
    assert found[0, 20:80, 20:110, 0].median() == pytest.approx(3, abs=0.1)


def test_tensors_of_the_cpu_have_dis_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flow_of(Motion(), CPU, None, (100, 133)) is not None
    with pytest.raises(RuntimeError, match="takes tensors of a cuda device"):
        flow_of(Motion(), CPU, "engine", (100, 133))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_an_engine_dis_does_it_with_a_warning_unless_the_engine_is_asked_for() -> None:
    with pytest.warns(UserWarning, match=r"no optical-flow engine for frames of 133x100 on cuda:0: .*; DIS on the CPU"):
        assert flow_of(Motion(), GPU, None, (100, 133)) is not None
    with pytest.raises(RuntimeError, match="no optical-flow engine for frames of 133x100 on cuda:0"):
        flow_of(Motion(), GPU, "engine", (100, 133))


@pytest.mark.parametrize("grid", engine.GRIDS)
def test_dali_takes_the_graph(grid: int) -> None:
    """As far as that goes without a GPU: DALI knows the operators and all their arguments."""
    pipe = engine.pipeline(0, grid)
    assert pipe.max_batch_size == engine.BATCH
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="while CUDA is not available"):
            pipe.build()


def test_fields_of_cells_become_fields_of_pixels() -> None:
    """A vector stands in the middle of its cell, is interpolated between, and is not scaled."""
    columns = torch.arange(6).float().expand(1, 5, 6)
    found = engine.dense(torch.stack([columns, -columns], -1), 18, 23, 4)
    assert found.shape == (1, 18, 23, 2)
    places = (torch.arange(23) - 1.5) / 4
    torch.testing.assert_close(found[0, 9, :, 0], places.clamp(0, 5))
    torch.testing.assert_close(found[..., 1], -found[..., 0])
    same = torch.rand(2, 7, 9, 2)
    assert engine.dense(same, 7, 9, 1) is same


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
@pytest.mark.parametrize("shift", [-4, 3])
def test_the_engine_finds_a_shift_in_the_right_direction(shift: int) -> None:
    """Fails if DALI's sequences are read the other way round."""
    try:
        flow = engine.opened(GPU, (100, 133))
    except RuntimeError as error:
        pytest.skip(str(error))
    sources, targets = (torch.from_numpy(frames).to(GPU) for frames in shifted(shift, engine.BATCH + 3))
    found = flow(sources, targets)
    assert found.shape == (engine.BATCH + 3, 100, 133, 2)
    inside = found[:, 20:80, 20:110].flatten(0, 2).median(0).values.cpu()
    np.testing.assert_allclose(inside.numpy(), [shift, 0], atol=0.3)
