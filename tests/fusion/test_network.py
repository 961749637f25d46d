"""The network: attention, absence, dropout, and members that do not touch each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vsa_core.fusion.network import FusionNetwork

DIMS = (5, 3, 4)
MEMBERS, ROWS = 3, 40


@pytest.fixture
def network() -> FusionNetwork:
    made = FusionNetwork(DIMS, 8, MEMBERS, (3, 7), dropout=0.3, view_dropout=0.5)
    made.initialise(torch.Generator().manual_seed(0))
    return made


@pytest.fixture
def inputs() -> tuple[list[torch.Tensor], torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    present = torch.rand(ROWS, len(DIMS), generator=g) < 0.5
    present[0] = False
    present[1] = True
    return [torch.randn(ROWS, d, generator=g) for d in DIMS], present


def test_shapes_and_attention(
    network: FusionNetwork, inputs: tuple[list[torch.Tensor], torch.Tensor]
) -> None:
    embeddings, present = inputs
    out = network(embeddings, present)
    assert out.sentiment.shape == (MEMBERS, ROWS, 3)
    assert out.emotion.shape == (MEMBERS, ROWS, 7)
    assert out.attention.shape == (MEMBERS, ROWS, 3)
    assert (out.attention[:, ~present] == 0).all()
    assert (out.attention[:, present] > 0).all()
    expected = present.any(dim=1).float().expand(MEMBERS, -1)
    torch.testing.assert_close(out.attention.sum(dim=-1), expected)
    assert all(torch.isfinite(part).all() for part in out)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
def test_what_stands_where_a_view_is_absent_cannot_matter(
    network: FusionNetwork, inputs: tuple[list[torch.Tensor], torch.Tensor], rubbish: float
) -> None:
    embeddings, present = inputs
    spoilt = [torch.where(present[:, view, None], x, rubbish) for view, x in enumerate(embeddings)]
    for clean, dirty in zip(network(embeddings, present), network(spoilt, present), strict=True):
        assert torch.equal(clean, dirty)
    loss = sum(part.sum() for part in network(spoilt, present, torch.Generator()))
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def test_huge_but_finite_inputs_stay_finite(network: FusionNetwork) -> None:
    out = network([torch.full((2, d), 3e38) for d in DIMS], torch.ones(2, 3, dtype=torch.bool))
    assert all(torch.isfinite(part).all() for part in out)


def test_dropping_views_never_drops_all(network: FusionNetwork) -> None:
    present = torch.ones(MEMBERS, 500, 3, dtype=torch.bool)
    present[:, :250, 2] = False
    embeddings = [torch.randn(MEMBERS, 500, d, generator=torch.Generator()) for d in DIMS]
    attention = network(embeddings, present, torch.Generator().manual_seed(0)).attention
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(MEMBERS, 500))
    dropped = ((attention == 0) & present).float().mean()
    assert 0.2 < dropped < 0.5  # half of them, less those that would leave nothing
    assert (attention[:, :250, 2] == 0).all()


def test_inference_drops_nothing_and_training_draws_from_its_generator(
    network: FusionNetwork, inputs: tuple[list[torch.Tensor], torch.Tensor]
) -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(network(*inputs).sentiment, network(*inputs).sentiment)
    drawn = [network(*inputs, torch.Generator().manual_seed(s)).sentiment for s in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_members_do_not_touch_each_other(
    network: FusionNetwork, inputs: tuple[list[torch.Tensor], torch.Tensor]
) -> None:
    before = network(*inputs).sentiment
    network(*inputs).sentiment[1].square().sum().backward()
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert (parameter.grad[[0, 2]] == 0).all()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] += 1
    after = network(*inputs).sentiment
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_inference_in_blocks_is_the_forward_pass(network: FusionNetwork) -> None:
    rng = np.random.default_rng(0)
    embeddings = [rng.normal(size=(2500, d)).astype(np.float32) for d in DIMS]
    present = rng.random((2500, 3)) < 0.7
    sentiment, emotion, attention = network.infer(embeddings, present)
    whole = network([torch.from_numpy(x) for x in embeddings], torch.from_numpy(present))
    for got, want in zip((sentiment, emotion, attention), whole, strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)
    assert [a.shape[1] for a in network.infer([x[:0] for x in embeddings], present[:0])] == [0] * 3
