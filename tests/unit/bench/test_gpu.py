import pytest

from bench.training.gpu import SHAPES, block_parameters, longest, necessary_flops
from bench.training.task import Lengths, Shape, Task, make_pairs, necessary_tokens, response_tokens


def test_block_parameters_are_those_of_the_policy():
    shape = Shape("small", vocabulary=64, hidden=16, layers=3, heads=4, key_heads=2, intermediate=24)
    layers = shape.policy("float32").model.layers

    matrices = sum(parameter.numel() for parameter in layers.parameters() if parameter.dim() == 2)

    assert block_parameters(shape) == matrices


@pytest.mark.parametrize(("name", "billions"), [("0.5B", 0.36), ("1.5B", 1.31), ("7B", 6.53)])
def test_shapes_have_the_sizes_of_qwen(name, billions):
    """Without embeddings, as the model cards say."""
    assert block_parameters(SHAPES[name]) / 1e9 == pytest.approx(billions, abs=0.01)


def test_necessary_operations_by_hand():
    """One pair, 4 views of 20 + 3 prompt tokens, responses of 2: 4 * (23 + 1 + 1) tokens read, 4 * 4 predicted.

    Blocks: q and o 2 * 2 * 2, k and v 2 * 2 * 2, three of 2 * 5: 46 weights. Seen: 23 * 24 / 2 by a view's prompt, 24
    by each response's one token: 324.
    """
    shape = Shape("two", vocabulary=7, hidden=2, layers=1, heads=1, key_heads=1, intermediate=5)
    task = Task("ours", shape, "float32", 1, 0, 1, Lengths((3, 3), (2, 2)))
    pairs = make_pairs(task)

    assert necessary_tokens(pairs) == 100
    assert response_tokens(pairs) == 16
    assert necessary_flops(shape, pairs) == 6 * 46 * 100 + 6 * 7 * 2 * 16 + 12 * 2 * 4 * 324
    assert necessary_flops(shape, pairs, adapters=True) == 4 * 46 * 100 + 4 * 7 * 2 * 16 + 12 * 2 * 4 * 324


@pytest.mark.parametrize("limit", [0, 63, 64, 100, 127, 1000, 4096, 10_000])
def test_longest_context_is_found_to_an_eighth(limit):
    found = longest(lambda context: context <= limit, start=64, most=4096)

    assert found <= limit
    assert found == 0 if limit < 64 else found >= min(limit, 4096) * 8 / 9 - 1
