"""The network: attention, absence, dropout, and members that do not touch each other."""

from __future__ import annotations

import pytest
import torch

from vsa_core.fusion.attention import AttentionNetwork

DIMS = (5, 3, 4)
CLASSES = (3, 7, 2)
MEMBERS, ROWS = 3, 40

Inputs = tuple[list[torch.Tensor], torch.Tensor]


def drawn(seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + m) for m in range(MEMBERS)]


@pytest.fixture
def network() -> AttentionNetwork:
    made = AttentionNetwork(DIMS, 8, MEMBERS, CLASSES, dropout=0.3, view_dropout=0.5)
    made.initialise(drawn(0))
    return made


@pytest.fixture
def inputs() -> Inputs:
    g = torch.Generator().manual_seed(1)
    present = torch.rand(MEMBERS, ROWS, len(DIMS), generator=g) < 0.5
    present[:, 0] = False
    present[:, 1] = True
    return [torch.randn(MEMBERS, ROWS, d, generator=g) for d in DIMS], present


def test_shapes_and_attention(network: AttentionNetwork, inputs: Inputs) -> None:
    xs, present = inputs
    out = network(xs, present)
    assert [logits.shape for logits in out.logits] == [(MEMBERS, ROWS, k) for k in CLASSES]
    assert (out.attention[~present] == 0).all()
    assert (out.attention[present] > 0).all()
    torch.testing.assert_close(out.attention.sum(dim=-1), present.any(dim=-1).float())


def test_what_stands_where_a_view_is_absent_cannot_matter(
    network: AttentionNetwork, inputs: Inputs
) -> None:
    xs, present = inputs
    spoilt = [torch.where(present[..., v, None], x, 1e4) for v, x in enumerate(xs)]
    for clean, dirty in zip(
        network(xs, present).logits, network(spoilt, present).logits, strict=True
    ):
        assert torch.equal(clean, dirty)


def test_the_logits_are_the_heads_reading_of_the_attended_hidden_vector(
    network: AttentionNetwork, inputs: Inputs
) -> None:
    xs, present = inputs
    out = network(xs, present)
    hidden = torch.stack([e(x) for e, x in zip(network.encoders, xs, strict=True)], dim=-2)
    fused = (out.attention[..., None] * hidden).sum(dim=-2)
    somewhere = present.any(dim=-1)
    want = network.heads(fused)[somewhere]
    torch.testing.assert_close(torch.cat(out.logits, dim=-1)[somewhere], want)


def test_dropping_views_never_drops_all(network: AttentionNetwork) -> None:
    present = torch.ones(MEMBERS, 500, 3, dtype=torch.bool)
    present[:, :250, 2] = False
    xs = [torch.randn(MEMBERS, 500, d, generator=torch.Generator()) for d in DIMS]
    attention = network(xs, present, drawn(0)).attention
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(MEMBERS, 500))
    dropped = ((attention == 0) & present).float().mean()
    assert 0.2 < dropped < 0.5  # half of them, less those that would leave nothing
    assert (attention[:, :250, 2] == 0).all()


def test_inference_drops_nothing_and_training_draws_from_its_generators(
    network: AttentionNetwork, inputs: Inputs
) -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(network(*inputs).logits[0], network(*inputs).logits[0])
    said = [network(*inputs, drawn(s)).logits[0] for s in (5, 5, 90)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_members_do_not_touch_each_other(network: AttentionNetwork, inputs: Inputs) -> None:
    before = network(*inputs).logits[0]
    network(*inputs).logits[0][1].square().sum().backward()
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert (parameter.grad[[0, 2]] == 0).all()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] += 1
    after = network(*inputs).logits[0]
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_a_member_taken_out_says_the_same(network: AttentionNetwork, inputs: Inputs) -> None:
    xs, present = inputs
    whole = network(xs, present)
    alone = network.member(2)([x[2:3] for x in xs], present[2:3])
    torch.testing.assert_close(alone.logits[1][0], whole.logits[1][2])
    torch.testing.assert_close(alone.attention[0], whole.attention[2])
