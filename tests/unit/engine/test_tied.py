"""A weight that is embedding and output layer gets the gradient that autograd would add up of both."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import Qwen2Config, Qwen2ForCausalLM

from amopo_core.engine.head import reference_logps, target_logps
from amopo_core.engine.tied import LeftGradient, TiedEmbedding, tied_embedding

TOKENS = torch.tensor([[3, 1, 3, 0], [5, 3, 3, 2]])
TARGETS = torch.tensor([1, 1, 4, 0, 2, 3, 5, 5])


class Tied(nn.Module):
    """The least policy: what a token looks up, through the same weight again."""

    def __init__(self, padding=None, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(6, 4, padding_idx=padding, dtype=dtype)
        nn.init.normal_(self.embedding.weight)
        self.layer = nn.Linear(4, 6, bias=False, dtype=dtype)
        self.layer.weight = self.embedding.weight

    def get_input_embeddings(self):
        return self.embedding

    def plain(self):
        hidden = self.embedding(TOKENS).tanh().flatten(0, 1)
        return reference_logps(hidden, self.layer.weight, TARGETS)

    def ours(self, tied):
        hidden = self.embedding(TOKENS).tanh().flatten(0, 1)
        return target_logps(hidden, self.layer.weight, TARGETS, None, tied.left)


def gradient(model, logps, passes=1):
    model.zero_grad()
    for _ in range(passes):
        logps().backward(torch.linspace(-1, 2, len(TARGETS), dtype=torch.float64))
    return model.embedding.weight.grad


@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_gradient_of_both_uses(padding, passes):
    model = Tied(padding)
    wanted = gradient(model, model.plain, passes).clone()

    tied = TiedEmbedding(model.embedding)
    found = gradient(model, lambda: model.ours(tied), passes)

    assert_close(found, wanted)


def test_two_passes_before_the_first_goes_back():
    model = Tied()
    wanted = gradient(model, lambda: torch.stack([model.plain(), 2 * model.plain()]).sum(0))

    tied = TiedEmbedding(model.embedding)
    assert_close(gradient(model, lambda: torch.stack([model.ours(tied), 2 * model.ours(tied)]).sum(0)), wanted)


def test_narrow_products_and_a_wide_weight():
    """Under autocast the output layer's gradient is narrow, the weight's own is not."""
    model = Tied(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = gradient(model, lambda: model.plain().double()).clone()
        tied = TiedEmbedding(model.embedding)
        found = gradient(model, lambda: model.ours(tied).double())

    assert found.dtype == torch.float32
    assert_close(found, wanted, rtol=0.03, atol=0.03)


def test_gradients_at_every_place():
    model = Tied()
    tied = TiedEmbedding(model.embedding)

    assert torch.autograd.gradcheck(lambda _: model.ours(tied), (model.embedding.weight,))


def test_without_gradients_nothing_is_left():
    model = Tied()
    tied = TiedEmbedding(model.embedding)
    with torch.no_grad():
        model.ours(tied)
    assert tied.left is None
    model.embedding.weight.requires_grad_(False)

    assert not model.ours(tied).requires_grad
    assert tied.left is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_earlier_passes_gathered_is_added_to_where_it_lies(dtype):
    """Otherwise each pass would make room for another gradient of all words."""
    model = Tied(dtype=dtype)
    tied = TiedEmbedding(model.embedding)
    once = gradient(model, lambda: model.ours(tied).double()).clone()
    lies_at = model.embedding.weight.grad.data_ptr()

    model.ours(tied).double().backward(torch.linspace(-1, 2, len(TARGETS), dtype=torch.float64))

    assert model.embedding.weight.grad.data_ptr() == lies_at
    assert_close(model.embedding.weight.grad, 2 * once)


def test_a_wide_gradient_of_narrow_products_is_not_narrowed_as_more_is_added():
    """Else what is small beside it would be lost."""
    model = Tied(dtype=torch.float32)
    tied = TiedEmbedding(model.embedding)
    before = 1 + 2**-12 + torch.zeros(6, 4)
    model.embedding.weight.grad = before.clone()
    with torch.autocast("cpu", torch.bfloat16):
        (0 * model.ours(tied)).sum().backward()

    assert torch.equal(model.embedding.weight.grad, before)


def test_the_room_of_a_gradient_that_has_served_is_used_again():
    model = Tied()
    wanted = gradient(model, model.plain).clone()
    tied = TiedEmbedding(model.embedding)
    lies_at = gradient(model, lambda: model.ours(tied)).data_ptr()

    tied.keep_room()
    assert model.embedding.weight.grad is None
    found = gradient(model, lambda: model.ours(tied))

    assert found.data_ptr() == lies_at
    assert_close(found, wanted)


def test_room_is_lent_to_one_pass_alone():
    """Two passes go back at once: the second may not write over what the first has left."""
    model = Tied()
    wanted = gradient(model, lambda: torch.stack([model.plain(), 2 * model.plain()]).sum(0)).clone()
    tied = TiedEmbedding(model.embedding)
    gradient(model, lambda: model.ours(tied))
    tied.keep_room()

    assert_close(gradient(model, lambda: torch.stack([model.ours(tied), 2 * model.ours(tied)]).sum(0)), wanted)


def test_what_was_left_is_taken_once():
    left = LeftGradient(TiedEmbedding(Tied().embedding))
    left.leave(torch.ones(2))
    left.leave(torch.ones(2))

    assert left.take().tolist() == [2, 2]
    assert left.take() is None


def test_an_embedding_is_as_it_was_afterwards():
    model = Tied()
    wanted = gradient(model, model.plain).clone()

    TiedEmbedding(model.embedding).detach()

    assert "forward" not in vars(model.embedding)
    assert_close(gradient(model, model.plain), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_which_embeddings_are_tied(tied):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=20, tie_word_embeddings=tied, num_key_value_heads=1, **sizes))

    found = tied_embedding(model, model.lm_head)

    assert found is (model.model.embed_tokens if tied else None)
