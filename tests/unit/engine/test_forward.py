"""Packed rows give the numbers of separate rows; whatever cannot be packed is found out."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.engine.attention import SEGMENTS, block_mask, dense_mask
from amopo_core.engine.batches import packed_rows, separate_rows
from amopo_core.engine.forward import PolicyForward, Way, best_forward
from amopo_core.engine.logps import pad_sequences, token_logps

SIZE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
PACKED = Way(packed=True, attention=SEGMENTS, tiled_head=True)


def policy(kind, dtype=torch.float64, **changes):
    config = getattr(transformers, f"{kind}Config")(**SIZE | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype).eval()


class WideNorm(torch.nn.Module):
    """RMSNorm in the precision of its input: transformers' own rounds float64 to float32 on the way."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, states):
        return torch.nn.functional.rms_norm(states, self.weight.shape, self.weight, self.eps)


def with_wide_norms(model):
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, WideNorm(child))
    return model


@st.composite
def batches(draw):
    """Prompts, some of which begin alike, each with two responses."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))

    def tokens(count):
        return torch.randint(60, (count,), generator=generator).tolist()

    system = tokens(draw(st.integers(0, 30)))
    prompts = [system + tokens(draw(st.integers(1, 30))) for _ in range(draw(st.integers(1, 3)))]
    responses = [tokens(draw(st.integers(1, 12))) for _ in range(2 * len(prompts))]
    return [prompt for prompt in prompts for _ in range(2)], responses


def logps_and_gradients(model, logps_of, mask):
    model.zero_grad()
    logps = logps_of()
    weights = torch.linspace(-1, 1, int(mask.sum()), dtype=logps.dtype)
    (logps[mask] * weights).sum().backward()
    return logps[mask].detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@settings(max_examples=12)
@given(batch=batches())
def test_shared_prompts_change_neither_values_nor_gradients(kind, dtype, tolerance, batch):
    prompts, responses = batch
    plain = pad_sequences(prompts, responses)
    model = with_wide_norms(policy(kind, dtype, tie_word_embeddings=True))
    expected, expected_gradients = logps_and_gradients(model, lambda: token_logps(model, plain), plain.response_mask_NR)
    forward = PolicyForward(model, PACKED)
    rows = packed_rows(prompts, responses)

    found, gradients = logps_and_gradients(model, lambda: forward.token_logps(model, rows), rows.response_mask_NR)

    assert_close(found, expected, rtol=tolerance, atol=tolerance * 10)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, wanted, rtol=tolerance, atol=tolerance * float(1 + wanted.abs().max()))


@settings(max_examples=10)
@given(batch=batches())
def test_rows_of_one_sequence_give_the_same(batch):
    prompts, responses = batch
    plain, model = pad_sequences(prompts, responses), policy("Llama")
    expected = token_logps(model, plain)[plain.response_mask_NR]
    forward = PolicyForward(model, Way(packed=False, attention="sdpa", tiled_head=False))
    rows = separate_rows(prompts, responses)

    assert_close(forward.token_logps(model, rows)[rows.response_mask_NR], expected)


@settings(max_examples=20)
@given(batch=batches())
def test_the_masks_of_every_attention_are_the_same(batch):
    rows = packed_rows(*batch)
    from torch.nn.attention.flex_attention import flex_attention

    dense = dense_mask(rows.subtree_end_T)
    states = torch.randn(3, 1, 2, len(dense), 8)

    # flex_attention runs here without gradients only: its mask is what can be compared
    fused = flex_attention(*states, block_mask=block_mask(rows.subtree_end_T, rows.segments))
    plain = torch.nn.functional.scaled_dot_product_attention(*states, attn_mask=dense)

    assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(
    shared=st.integers(0, 300),
    views=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=4),
    pairs=st.integers(1, 3),
)
def test_the_blocks_for_flex_attention_are_those_that_torch_finds_in_the_whole_mask(shared, views, pairs):
    from torch.nn.attention.flex_attention import create_block_mask

    draw = torch.Generator().manual_seed(0)
    prompts, responses, owners = [], [], []
    for owner in range(pairs):
        begin = torch.randint(2, 500, (shared,), generator=draw).tolist()
        for prompt, *lengths in views:
            prompts += [begin + torch.randint(2, 500, (prompt,), generator=draw).tolist()] * 2
            responses += [torch.randint(2, 500, (length,), generator=draw).tolist() for length in lengths]
            owners += [owner] * 2
    rows = packed_rows(prompts, responses, owners)
    dense, length = dense_mask(rows.subtree_end_T), len(rows.subtree_end_T)

    found = block_mask(rows.subtree_end_T, rows.segments)
    expected = create_block_mask(lambda b, h, q, k: dense[q, k], None, None, length, length, device="cpu")

    assert found.shape == expected.shape
    assert torch.equal(found.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for counts, name in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        for query, count in enumerate(getattr(found, counts)[0, 0].tolist()):
            assert getattr(found, name)[0, 0, query, :count].tolist() == (
                getattr(expected, name)[0, 0, query, :count].tolist()
            )


@pytest.mark.parametrize(
    ("kind", "changes", "packed", "tiled"),
    [
        ("Llama", {}, True, True),
        ("Qwen2", {"tie_word_embeddings": True}, True, True),
        ("Qwen3", {}, True, True),
        ("Mistral", {"sliding_window": 64}, False, True),  # a window shorter than a sequence
        ("Mistral", {"sliding_window": 4096}, True, True),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False, True),
        ("Granite", {"logits_scaling": 4.0}, False, False),  # logits are scaled behind the output layer
        ("Gemma2", {}, False, False),  # and capped, within attention too
        ("Lfm2", {"layer_types": ["conv", "full_attention"]}, False, True),  # a convolution mixes neighbours
        ("Lfm2", {"layer_types": ["conv", "full_attention"], "initializer_range": 0.002}, False, True),  # all alike
        ("Llama", {"initializer_range": 0.002}, True, True),
        ("Granite", {"initializer_range": 0.002, "logits_scaling": 4.0}, False, False),
        ("Llama", {"num_hidden_layers": 5}, True, True),  # asked with its first blocks alone
        ("Lfm2", {"num_hidden_layers": 4, "layer_types": [*["full_attention"] * 3, "conv"]}, False, True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_policy_itself_shows_what_it_can_take(kind, changes, packed, tiled, dtype):
    model = policy(kind, dtype, **changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    way = best_forward(model, max_length=200).way

    assert (way.packed, way.tiled_head) == (packed, tiled)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_policy_is_asked_with_its_first_blocks_and_runs_with_all():
    model = policy("Llama", torch.float32, num_hidden_layers=6)
    prompts, responses = [[3] * 20, [3] * 20], [[1, 2, 3], [4, 5]]
    plain = torch.log_softmax(model(torch.tensor([prompts[1] + responses[1]])).logits[0, 19:21], -1)
    asked = []
    model.model.layers[1].register_forward_hook(lambda *_: asked.append(1))
    model.model.layers[2].register_forward_hook(lambda *_: asked.append(2))

    forward = best_forward(model, 100)
    found_NR = forward.token_logps(model, forward.rows(prompts, responses))

    assert asked == [*[1] * (len(asked) - 1), 2]
    assert len(asked) > 2
    assert_close(found_NR[1, :2], plain[[0, 1], responses[1]])


def test_a_policy_is_saved_and_given_back_as_it_was(tmp_path):
    model = policy("Llama", torch.float32)
    ids = torch.tensor([[1, 2, 3]])
    expected = model(ids).logits.detach()

    forward = best_forward(model, 100)
    model.save_pretrained(tmp_path)
    forward.detach()

    assert forward.way == PACKED
    assert "amopo" not in (tmp_path / "config.json").read_text()
    assert_close(model(ids).logits, expected)


@pytest.mark.parametrize("packed", [True, False])
def test_gradient_checkpointing_changes_nothing(packed):
    prompts, responses = [[3] * 20, [3] * 20], [[1, 2, 3], [4, 5]]
    way = PACKED if packed else Way(packed=False, attention="sdpa", tiled_head=True)
    gradients = []
    for checkpointed in (False, True):
        model = policy("Llama")
        forward = PolicyForward(model, way)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        rows = forward.rows(prompts, responses)
        gradients.append(
            logps_and_gradients(model, lambda m=model, f=forward, r=rows: f.token_logps(m, r), rows.response_mask_NR)
        )

    assert_close(gradients[0], gradients[1])


def test_compiled_blocks_are_compiled_once_and_the_last_by_itself():
    model = policy("Qwen2", torch.float32, num_hidden_layers=12)
    forward = PolicyForward(model, PACKED)
    rows = forward.rows([[3] * 20, [3] * 20], [[1, 2, 3], [4, 5]])
    expected, gradients = logps_and_gradients(model, lambda: forward.token_logps(model, rows), rows.response_mask_NR)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    for block in model.model.layers:
        block.compile(backend=backend, dynamic=True)
    found = logps_and_gradients(model, lambda: forward.token_logps(model, rows), rows.response_mask_NR)

    assert len(graphs) == 2
    assert_close(found, (expected, gradients), rtol=1e-4, atol=1e-5)
