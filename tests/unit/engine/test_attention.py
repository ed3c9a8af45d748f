"""Attention piece by piece: what slices and their gradients come to, to the byte. Against other ways: test_forward."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from amopo_core.engine.attention import Pieces, segment_attention
from amopo_core.engine.tree import Segment

HEADS, KEY_HEADS, SIZE = 4, 2, 8
TREES = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 30), max_size=3)),
    min_size=1,
    max_size=3,
)
"""Tokens of a prompt, and of its responses."""


def segments_of(trees):
    """Prompts in a row, each with its responses behind it."""
    lengths = [length for prompt, responses in trees for length in (prompt, *responses)]
    parents = []
    for _, responses in trees:
        root = len(parents)
        parents += [(), *[(root,)] * len(responses)]
    places = pairwise([sum(lengths[:number]) for number in range(len(lengths) + 1)])
    return [Segment(start, stop, above) for (start, stop), above in zip(places, parents, strict=True)]


def states_of(segments, dtype):
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, heads, segments[-1].stop, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def by_slices(query, key, value, segments):
    """The same with a slice of its own for every part that is seen."""
    found = []
    for each in segments:
        path = [*(segments[parent] for parent in each.parents), each]
        before = sum(map(len, path)) - len(each)
        mask = query.new_full((len(each), before + len(each)), -torch.inf).triu(before + 1) if before else None
        seen = [torch.cat([states[:, :, part.start : part.stop] for part in path], 2) for states in (key, value)]
        queries = query[:, :, each.start : each.stop]
        found.append(
            scaled_dot_product_attention(queries, *seen, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
        )
    return torch.cat(found, dim=2).transpose(1, 2)


def with_gradients(attend, states):
    found = attend(*states)
    return [found, *torch.autograd.grad((found * torch.linspace(1, 2, SIZE, dtype=found.dtype)).sin().sum(), states)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@settings(max_examples=50)
@given(trees=TREES)
def test_values_and_gradients_are_those_of_slices_to_the_byte(dtype, trees):
    segments = segments_of(trees)
    pieces, states = Pieces(segments), states_of(segments, dtype)

    found = with_gradients(lambda *each: segment_attention(nn.Module(), *each, None, pieces=pieces)[0], states)

    for ours, plain in zip(found, with_gradients(lambda *each: by_slices(*each, segments), states), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=30)
@given(trees=TREES, share=st.floats(0, 1))
def test_tokens_that_nobody_reads_are_left_out(dtype, trees, share):
    segments = segments_of(trees)
    unread = [round(len(each) * share) for each in segments]  # all of a segment, too
    states = states_of(segments, dtype)
    read = torch.cat([torch.arange(len(each)) >= count for each, count in zip(segments, unread, strict=True)])

    def attend(pieces):
        return lambda *each: segment_attention(nn.Module(), *each, None, pieces=pieces)[0] * read[None, :, None, None]

    found = with_gradients(attend(Pieces(segments).without(unread)), states)

    assert_close(found, with_gradients(attend(Pieces(segments)), states), rtol=1e-4, atol=1e-5)
    without = segment_attention(nn.Module(), *states, None, pieces=Pieces(segments).without(unread))[0]
    assert not without[:, ~read].any()


def test_a_compiler_finds_the_same():
    segments = segments_of([(20, [5, 7]), (9, [4, 4])])
    pieces, states = Pieces(segments), states_of(segments, torch.float32)

    def attend(*each):
        return segment_attention(nn.Module(), *each, None, pieces=pieces)[0]

    compiled = torch.compile(attend, backend="aot_eager")
    assert_close(with_gradients(compiled, states), with_gradients(attend, states))
