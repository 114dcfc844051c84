"""Each loss on two-dimensional embeddings against numbers computed by hand or in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fbm_dist.objectives.coherency.losses import apart, distances, over_strangers, ranked, ranked_at_once, together


def test_distances_are_euclidean_and_flat_where_frames_are_equal() -> None:
    a = torch.tensor([[0.0, 3.0], [1.0, 1.0]], requires_grad=True)
    b = torch.tensor([[4.0, 0.0], [1.0, 1.0]])
    found = distances(a, b)
    assert found.tolist() == [5.0, 0.0]
    found.sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[pytest.approx(-0.8), pytest.approx(0.6)], [0.0, 0.0]]


def test_the_two_halves_of_eq_2() -> None:
    d = torch.tensor([0.0, 0.4, 1.0, 1.3])
    assert together(d, squared=False).tolist() == d.tolist()
    assert apart(d, 1.0, squared=False).tolist() == pytest.approx([1.0, 0.6, 0.0, 0.0])
    # Hadsell's squares: half each
    assert together(d, squared=True).tolist() == pytest.approx([0.0, 0.08, 0.5, 0.845])
    assert apart(d, 1.0, squared=True).tolist() == pytest.approx([0.5, 0.18, 0.0, 0.0])


def test_the_hinge_of_eq_3() -> None:
    far, strangers = torch.tensor([0.5, 0.2, 1.0]), torch.tensor([[0.7], [1.2], [0.4]])
    assert ranked(far, strangers, 0.5, squared=False).flatten().tolist() == pytest.approx([0.3, 0.0, 1.1])
    # 0.25 - 0.49 + 0.5, below 0, 1 - 0.16 + 0.5
    assert ranked(far, strangers, 0.5, squared=True).flatten().tolist() == pytest.approx([0.26, 0.0, 1.34])


def test_the_authors_hinge_adds_its_margin_once() -> None:
    """Against numpy's Frobenius norms: slack of one tuple pays for another, which the hinge of each tuple does not allow."""
    rng = np.random.default_rng(0)
    query, far, stranger = rng.normal(size=(3, 6, 4)).astype(np.float32)
    by_norms = float(np.linalg.norm(query - far) ** 2 - np.linalg.norm(query - stranger) ** 2)
    to_far, to_stranger = (distances(*map(torch.from_numpy, (query, other))) for other in (far, stranger))
    for margin in (0.5, 40.0):
        found = ranked_at_once(to_far, to_stranger, margin, squared=True)
        assert found.item() == pytest.approx(max(0.0, by_norms + margin) / 6, rel=1e-5)
    sums = np.linalg.norm(query - far, axis=1).sum() - np.linalg.norm(query - stranger, axis=1).sum()
    assert ranked_at_once(to_far, to_stranger, 9.0, squared=False).item() == pytest.approx(max(0.0, sums + 9.0) / 6)
    of_each = ranked(to_far, to_stranger[:, None], 0.5, squared=True).mean()
    assert of_each > ranked_at_once(to_far, to_stranger, 0.5, squared=True)


def test_only_strangers_that_count_are_averaged() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, 5.0]])
    counts = torch.tensor([[True, False, True], [False, False, False]])
    assert over_strangers(values, counts).tolist() == [3.5, 0.0]
