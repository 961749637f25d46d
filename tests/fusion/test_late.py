"""Fusion without training, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vsa_core.fusion import late

NAN = np.nan
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
TABLE = np.array(
    [
        [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]],
        [[0.6, 0.3, 0.1], [NAN] * 3],
        [[NAN] * 3, [NAN] * 3],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[1.0, 0.0, 0.0], [0.3, 0.4, 0.3]],
    ]
)


def test_mean() -> None:
    pooled = late.mean(TABLE)
    assert np.allclose(pooled[0], [0.4, 0.4, 0.2])
    assert np.allclose(pooled[1], [0.6, 0.3, 0.1])
    assert np.isnan(pooled[2]).all()
    assert np.allclose(pooled[3], [0.5, 0.5, 0])


def test_product() -> None:
    pooled = late.product(TABLE)
    assert np.allclose(pooled[0], np.array([0.12, 0.15, 0.03]) / 0.30)
    assert np.allclose(pooled[1], [0.6, 0.3, 0.1])
    assert np.isnan(pooled[2]).all()
    assert np.allclose(pooled[3, :2], 0.5, atol=1e-3)  # one view's zero is no veto
    assert pooled[4].argmax() == 0


def test_vote() -> None:
    pooled = late.vote(TABLE)
    assert np.allclose(pooled[0], [0.5, 0.5, 0])
    assert np.allclose(pooled[1], [1, 0, 0])
    assert np.isnan(pooled[2]).all()
    three = np.array([[[0.4, 0.35, 0.25], [0.9, 0.05, 0.05], [0.0, 1.0, 0.0]]])
    assert np.allclose(late.vote(three)[0], [2 / 3, 1 / 3, 0])


def test_shares_are_even_over_the_views_that_vote() -> None:
    present = np.array([[True, True], [True, True], [False, False], [True, True], [True, True]])
    found = late.shares(TABLE, present)
    assert found[0].tolist() == [0.5, 0.5]
    assert found[1].tolist() == [1.0, 0.0]  # there, but without a vote
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("pool", [late.mean, late.product, late.vote])
def test_the_order_of_views_and_classes_does_not_matter(pool: object) -> None:
    assert callable(pool)
    probs = np.random.default_rng(0).dirichlet([1] * 4, (50, 3))
    turned = pool(probs[:, ::-1][..., [2, 0, 3, 1]])
    assert np.allclose(turned, pool(probs)[:, [2, 0, 3, 1]])
    assert pool(np.zeros((0, 3, 4))).shape == (0, 4)
