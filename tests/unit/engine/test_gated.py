import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from amopo_core.engine.gated import gated_layers, gated_product, lean_forward

SIZE = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_the_product_and_its_gradients():
    """silu(0) = 0 and its slope is 1/2: the gradient of the gate is up / 2."""
    gate, up = torch.zeros(1, requires_grad=True), torch.full((1,), 3.0, requires_grad=True)
    gated_product(gate, up).backward()

    assert (gate.grad.item(), up.grad.item()) == (1.5, 0.0)
    states = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(gated_product, states)


def test_a_layer_computes_the_same_bytes_and_keeps_less():
    layer = next(gated_layers(LlamaForCausalLM(LlamaConfig(**SIZE))))
    results, kept = [], []
    for forward in (layer.forward, lambda states: lean_forward(layer, states)):
        states, sizes = torch.linspace(-3, 3, 40).view(1, 5, 8).requires_grad_(), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            loss = forward(states).square().sum()
        results.append([loss, *torch.autograd.grad(loss, [states, *layer.parameters()])])
        kept.append(sum(size for size in sizes if size == 5 * 12))

    assert_close(*results, rtol=0, atol=0)
    assert kept == [4 * 5 * 12, 3 * 5 * 12]  # gate, up, their product; and silu(gate)


def test_other_layers_are_left_alone():
    assert len(list(gated_layers(LlamaForCausalLM(LlamaConfig(**SIZE))))) == 2
    assert not list(gated_layers(LlamaForCausalLM(LlamaConfig(**SIZE, hidden_act="gelu"))))
    assert F.silu(torch.zeros(())) == 0
