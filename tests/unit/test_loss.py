import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.loss import pairwise_loss, weighted_loss

logps = st.floats(-20, 0)


def test_pairwise_loss_by_hand():
    """beta 2.0, logps -0.5 / -1.0: gap 1.0, minus margin 0.5 -> log(1 + e**-0.5) = 0.474077."""
    loss = pairwise_loss(torch.tensor([[-0.5]]), torch.tensor([[-1.0]]), beta=2.0, target_margin=0.5)

    assert_close(loss.loss_VB, torch.tensor([[0.474077]]), rtol=0, atol=1e-6)
    assert_close(loss.chosen_rewards_VB, torch.tensor([[-1.0]]))
    assert_close(loss.rejected_rewards_VB, torch.tensor([[-2.0]]))


@given(chosen=logps, rejected=logps, beta=st.floats(0.01, 10), margin=st.floats(0, 5))
def test_one_view_with_uniform_weight_is_simpo(chosen, rejected, beta, margin):
    """SimPO: log(1 + exp(-(beta * (a_w - a_l) - gamma)))."""
    chosen_VB, rejected_VB = (torch.tensor([[logp]], dtype=torch.float64) for logp in (chosen, rejected))
    pairwise = pairwise_loss(chosen_VB, rejected_VB, beta=beta, target_margin=margin)
    loss = weighted_loss(pairwise.loss_VB, torch.ones(1, 1, dtype=torch.float64))

    u = beta * (chosen - rejected) - margin
    expected = math.log1p(math.exp(-u)) if u > -30 else -u
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_rewards_and_weights_carry_no_gradient():
    chosen = torch.tensor([[-0.5]], requires_grad=True)
    weights = torch.tensor([[1.0]], requires_grad=True)
    pairwise = pairwise_loss(chosen, torch.tensor([[-1.0]]), beta=2.0, target_margin=0.0)
    weighted_loss(pairwise.loss_VB, weights).sum().backward()

    assert not pairwise.chosen_rewards_VB.requires_grad
    assert weights.grad is None
    assert chosen.grad is not None
