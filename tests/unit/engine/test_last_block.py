"""The last block does what is read of it, and nothing else. That values and gradients stay: test_forward."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.engine.attention import SEGMENTS
from amopo_core.engine.batches import packed_rows
from amopo_core.engine.forward import PolicyForward, Way
from amopo_core.engine.last_block import LastBlock, Reading, last_block
from amopo_core.engine.tree import MIN_SHARED

SIZE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
PROMPT = list(range(2, 2 + MIN_SHARED + 4))
PACKED = Way(packed=True, attention=SEGMENTS, tiled_head=True)


def policy(kind="Qwen2", **changes):
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**SIZE | changes))


def test_a_prompt_predicts_with_its_last_token_alone():
    rows = packed_rows([PROMPT] * 2, [[50, 51, 52], [53, 54]])

    assert [len(segment) for segment in rows.segments] == [20, 2, 1]  # no response's last token is read
    assert rows.unread == (19, 0, 0)
    assert rows.places_P.tolist() == [19, 20, 21, 22]
    assert rows.predicting_M.tolist() == [19, 20, 21, 19, 22]


def test_a_prompt_that_others_only_go_on_from_predicts_nothing():
    views = [[*PROMPT, 40, *PROMPT], [*PROMPT, 41, *PROMPT]]

    rows = packed_rows([view for view in views for _ in range(2)], [[50, 51], [52, 53]] * 2)

    assert [len(segment) for segment in rows.segments] == [20, 21, 1, 1, 21, 1, 1]
    assert rows.unread == (20, 20, 0, 0, 20, 0, 0)


@given(data=st.data())
def test_what_predicts_ends_its_segment(data):
    token = st.integers(2, 4)
    prompts = data.draw(st.lists(st.lists(token, min_size=1, max_size=40), min_size=1, max_size=6))
    prompts += [prompt + [2] * data.draw(st.integers(1, 30)) for prompt in prompts]
    responses = [data.draw(st.lists(token, min_size=1, max_size=30)) for _ in prompts]

    rows = packed_rows(prompts, responses)

    read = [np.arange(each.start + count, each.stop) for each, count in zip(rows.segments, rows.unread, strict=True)]
    assert np.concatenate(read).tolist() == rows.places_P.tolist() == sorted(set(rows.predicting_M.tolist()))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_makes_no_more_rows_than_are_read(checkpointed):
    """Though another pass began before this one was gone through backwards."""
    model = policy().train()
    forward = PolicyForward(model, PACKED)
    batches = [forward.rows([PROMPT] * 2, responses) for responses in ([[50, 51, 52], [53, 54]], [[50] * 9, [51] * 3])]
    for rows in batches:
        forward.token_logps(model, rows).sum().backward()
    one_by_one = [parameter.grad.clone() for parameter in model.parameters()]
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    made = [[] for _ in model.model.layers]
    for block, of_block in zip(model.model.layers, made, strict=True):
        block.mlp.gate_proj.register_forward_hook(lambda _, __, found, to=of_block: to.append(found[..., 0].numel()))
    model.zero_grad()

    sum(forward.token_logps(model, rows).sum() for rows in batches).backward()

    again = checkpointed * [1, 0]  # the last pass is gone through first
    assert made == [[(23, 30)[number] for number in (0, 1, *again)]] * 2 + [
        [(4, 11)[number] for number in (0, 1, *again)]
    ]
    assert_close([parameter.grad for parameter in model.parameters()], one_by_one)


def test_its_attention_answers_where_it_is_asked():
    model = policy()
    forward, rows = PolicyForward(model, PACKED), packed_rows([PROMPT] * 2, [[50, 51, 52], [53, 54]])
    answered = []
    for block in model.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: answered.append(args[0][0].any(-1)))

    forward.token_logps(model, rows)

    assert [found.nonzero().flatten().tolist() for found in answered] == [[*range(23)]] * 2 + [rows.places_P.tolist()]


def test_is_the_whole_block_where_it_is_read_whatever_its_attention():
    """As `flex_attention` runs it, which is told all by its mask."""
    model, places = policy(), torch.tensor([3, 4, 9])
    block, states = model.model.layers[-1], torch.randn(1, 10, 32, requires_grad=True)
    angles = model.model.rotary_emb(states, torch.arange(10)[None])

    def found(**reading):
        outcome = block(states, position_embeddings=angles, attention_mask=None, **reading)[0, places]
        return [outcome, *torch.autograd.grad(outcome.sin().sum(), [states, *block.parameters()])]

    whole = found()
    last = LastBlock(block)
    rows = []
    block.mlp.up_proj.register_forward_hook(lambda _, __, made: rows.append(made.shape[1]))

    assert_close(found(reading=Reading(places, None)), whole)
    assert_close(found(), whole)
    last.detach()
    assert_close(found(reading=Reading(places, None)), whole)
    assert rows == [3, 10, 10]


def test_is_made_what_it_was():
    model, ids = policy().eval(), torch.tensor([PROMPT])
    expected = model(ids).logits

    PolicyForward(model, PACKED).detach()

    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        ("Llama", {}, True),
        ("Qwen3", {}, True),
        ("Mixtral", {"num_local_experts": 2}, False),
        ("GPTNeoX", {}, False),
    ],
)
def test_is_found_where_a_gated_layer_ends_every_block(kind, changes, found):
    model = policy(kind, **changes)

    assert (last_block(model) is not None) == found


def test_is_not_found_among_two_stacks_or_unlike_blocks():
    blocks, others = policy().model.layers, policy("Llama").model.layers

    assert last_block(torch.nn.ModuleDict({"text": blocks})) is blocks[-1]
    assert last_block(torch.nn.ModuleDict({"text": blocks, "image": others})) is None
    assert last_block(torch.nn.ModuleList([others[0], blocks[0]])) is None
