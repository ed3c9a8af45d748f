from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from amopo_core.engine.lean import gated_forward, gated_product, lean_layers, linear_forward, norm_forward

pytestmark = pytest.mark.usefixtures("library")
SIZE = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def layer_with(forward, model=None):
    model = model or LlamaForCausalLM(LlamaConfig(**SIZE))
    return next(layer for layer, lean in lean_layers(model) if lean is forward)


def outcome(forward, layer, dtype=torch.float32):
    """Result and gradients of a layer, and how many numbers of more than its weights it keeps."""
    states, sizes = torch.linspace(-3, 3, 40, dtype=dtype).view(1, 5, 8).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        found = forward(states)
        loss = (found * torch.linspace(1, 2, 40, dtype=dtype).view(1, 5, 8)).square().sum()
    return [found, *torch.autograd.grad(loss, [states, *layer.parameters()])], sizes


def test_the_product_and_its_gradients():
    """silu(0) = 0 and its slope is 1/2: the gradient of the gate is up / 2."""
    gate, up = torch.zeros(1, requires_grad=True), torch.full((1,), 3.0, requires_grad=True)
    gated_product(gate, up).backward()

    assert (gate.grad.item(), up.grad.item()) == (1.5, 0.0)
    states = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(gated_product, states)


def test_a_gated_layer_computes_the_same_bytes_and_keeps_less():
    """The bytes in float64, in which products are torch's own."""
    layer = layer_with(gated_forward)

    (plain, kept), (lean, kept_lean) = outcome(layer.forward, layer), outcome(lambda x: gated_forward(layer, x), layer)
    layer.double()
    exact, same = (
        outcome(forward, layer, torch.float64)[0] for forward in (layer.forward, lambda x: gated_forward(layer, x))
    )

    assert_close(lean, plain)
    assert_close(same, exact, rtol=0, atol=0)
    assert [sizes.count(5 * 12) for sizes in (kept, kept_lean)] == [4, 2]  # silu(gate) and the product are made again


def test_a_hooked_projection_is_called():
    """What shards a weight gathers it in its layer's hooks; the product alone is spared then."""
    layer, called = layer_with(gated_forward), []
    wanted, _ = outcome(layer.forward, layer)
    layer.down_proj.register_forward_pre_hook(lambda *_: called.append(True))

    found, kept = outcome(lambda x: gated_forward(layer, x), layer)

    assert_close(found, wanted, rtol=0, atol=0)
    assert called == [True]
    assert kept.count(5 * 12) == 3


def test_a_projection_with_a_bias():
    layer = layer_with(gated_forward)
    layer.down_proj = nn.Linear(12, 8)

    assert_close(outcome(lambda x: gated_forward(layer, x), layer)[0], outcome(layer.forward, layer)[0], rtol=0, atol=0)


def test_under_autocast_a_gated_layer_rounds_as_it_does():
    layer = layer_with(gated_forward)

    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = outcome(lambda x: gated_forward(layer, x), layer)[0], outcome(layer.forward, layer)[0]

    assert_close(found, wanted, rtol=0, atol=0)


def test_a_norm_by_hand():
    """Of 3 and 4 the mean square is 12.5: 3 / sqrt(12.5) = 0.848528, twice 4 / sqrt(12.5) = 2.262742."""
    norm = layer_with(norm_forward)
    norm.weight, norm.variance_epsilon = nn.Parameter(torch.tensor([1.0, 2.0])), 0.0

    assert_close(norm_forward(norm, torch.tensor([[3.0, 4.0]])), torch.tensor([[0.848528, 2.262742]]))


def test_a_norm_computes_the_same_and_keeps_less():
    norm = layer_with(norm_forward)
    nn.init.normal_(norm.weight)

    (plain, kept), (lean, kept_lean) = outcome(norm.forward, norm), outcome(lambda x: norm_forward(norm, x), norm)

    assert_close(lean[0], plain[0], rtol=0, atol=0)
    assert_close(lean, plain)
    assert sum(size == 40 for size in kept) > sum(size == 40 for size in kept_lean)


def test_a_narrow_norm_errs_no_more_than_the_plain_one():
    """Over many draws: of one, the few numbers' rounding decides."""
    errors = torch.zeros(2, 3)
    for _ in range(50):
        norm = layer_with(norm_forward)
        nn.init.normal_(norm.weight)
        exact, _ = outcome(norm.forward, norm)
        norm.to(torch.bfloat16)
        for row, forward in enumerate((norm_forward, type(norm).forward)):
            found, _ = outcome(partial(forward, norm), norm, torch.bfloat16)
            assert [value.dtype for value in found] == [torch.bfloat16] * 3
            errors[row] += torch.stack([(x - y).detach().square().sum() for x, y in zip(found, exact, strict=True)])

    lean, plain = errors.sqrt()
    assert (lean <= 1.1 * plain).all()


def test_gradients_of_a_norm_are_its_slopes():
    """Against differences: the norm itself works in float32, so the steps are wide."""
    norm = layer_with(norm_forward)
    nn.init.normal_(norm.weight)
    states = torch.randn(2, 8, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: norm_forward(norm, x), states, eps=1e-2, atol=1e-2, rtol=1e-2)


def test_the_linear_layers_but_those_that_a_gated_one_multiplies_itself():
    model = LlamaForCausalLM(LlamaConfig(**SIZE))
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    model.model.layers[1].self_attn.o_proj.register_forward_hook(lambda *_: None)

    found = [names[layer] for layer, lean in lean_layers(model) if lean is linear_forward]

    first = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
    assert found == [*first, *(name for name in first if name != "o_proj"), "lm_head"]
    with_biases = LlamaForCausalLM(LlamaConfig(**SIZE, mlp_bias=True))
    assert with_biases.model.layers[0].mlp.down_proj in [layer for layer, _ in lean_layers(with_biases)]
    layer, states = model.lm_head, torch.randn(3, 8)
    assert_close(linear_forward(layer, states), layer(states))


def test_other_layers_are_left_alone():
    def kinds(**changes):
        return [lean for _, lean in lean_layers(LlamaForCausalLM(LlamaConfig(**SIZE, **changes)))]

    assert kinds().count(gated_forward) == 2
    assert kinds().count(norm_forward) == 5
    assert gated_forward not in kinds(hidden_act="gelu")
    assert F.silu(torch.zeros(())) == 0
