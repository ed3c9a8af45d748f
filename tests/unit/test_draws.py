import torch
from torch.testing import assert_close

from amopo_core.draws import standard_normal


def test_draws_repeat_and_differ_by_seed_step_and_pair():
    first = standard_normal(0, 3, "a", 4)

    assert torch.equal(first, standard_normal(0, 3, "a", 4))
    for other in (standard_normal(1, 3, "a", 4), standard_normal(0, 4, "a", 4), standard_normal(0, 3, "b", 4)):
        assert not torch.equal(first, other)


def test_draws_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    standard_normal(0, 0, "a", 4)

    assert torch.equal(torch.rand(3), expected)


def test_draws_are_standard_normal():
    draws = torch.stack([standard_normal(0, step, "a", 4) for step in range(5000)])

    assert_close(draws.mean(), torch.tensor(0.0), rtol=0, atol=0.02)
    assert_close(draws.std(), torch.tensor(1.0), rtol=0, atol=0.02)
