"""The tiled output layer gives the numbers of the plain one, and never holds the logits it does without."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from amopo_core.engine import head
from amopo_core.engine.head import reference_logps, target_logps

pytestmark = pytest.mark.usefixtures("library")
SMALL_TILE = (7, 16)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(head, "CPU_TILE", SMALL_TILE)
    monkeypatch.setattr(head, "DEVICE_TILE", SMALL_TILE)


def inputs(rows=20, words=50, size=8, dtype=torch.float64, bias=False, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden, weight = normal(rows, size) * spread, normal(words, size)
    return hidden, weight, torch.randint(words, (rows,), generator=generator), normal(words) if bias else None


def outcome(logps, hidden, weight, target, bias, dtype=None):
    """Log-probabilities, then the gradients of a weighted sum of them."""
    leaves = [
        None if x is None else x.detach().clone().to(dtype or x.dtype).requires_grad_() for x in (hidden, weight, bias)
    ]
    found = logps(leaves[0], leaves[1], target, leaves[2])
    scale = torch.linspace(-1, 2, len(target), dtype=found.dtype)
    found.backward(scale)
    return [found.detach()] + [leaf.grad for leaf in leaves if leaf is not None]


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_by_hand():
    """Logits 0, ln 2, ln 5 of one row: probabilities 1/8, 2/8, 5/8."""
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]], dtype=torch.float64)

    found = target_logps(torch.ones(3, 1, dtype=torch.float64), weight, torch.arange(3))

    assert_close(found.exp(), torch.tensor([0.125, 0.25, 0.625], dtype=torch.float64))


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_targets_logit_is_not_rounded_as_a_tile_is(bias):
    """-8 - 1/32 lies between two numbers of bfloat16, 1/16 apart."""
    hidden, weight = torch.ones(1, 2, dtype=torch.bfloat16), torch.tensor([[-8, -1 / 32], [0, 0]], dtype=torch.bfloat16)
    logit = -8 - 1 / 32 + bias

    found = target_logps(hidden, weight, torch.tensor([0]), torch.tensor([bias, 0], dtype=torch.bfloat16))

    assert float(found) == pytest.approx(logit - math.log1p(math.exp(logit)), abs=1e-5)


def test_gradient_by_hand():
    """Of log p_1 with respect to the logits: one-hot less the probabilities."""
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]], dtype=torch.float64, requires_grad=True)
    hidden = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)

    target_logps(hidden, weight, torch.tensor([1])).sum().backward()

    assert_close(weight.grad[:, 0], torch.tensor([-0.125, 0.75, -0.625], dtype=torch.float64))
    assert_close(hidden.grad[0, 0], torch.tensor(0.75 * math.log(2) - 0.625 * math.log(5), dtype=torch.float64))


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(1, 300), st.integers(1, 16), st.booleans(), st.integers(0, 99))
def test_equals_the_reference(rows, words, size, bias, seed):
    given_ = inputs(rows, words, size, bias=bias, seed=seed)

    found, wanted = outcome(target_logps, *given_), outcome(reference_logps, *given_)

    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile", [SMALL_TILE, (512, 1024)])
def test_float32(bias, tile, monkeypatch):
    monkeypatch.setattr(head, "CPU_TILE", tile)
    given_ = inputs(600, 2100, 16, torch.float32, bias)

    found, wanted = outcome(target_logps, *given_), outcome(reference_logps, *given_, torch.float64)

    assert [value.dtype for value in found] == [torch.float32] * len(found)
    assert max(map(distance, found, wanted)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_narrow_numbers_err_no_more_than_in_the_reference(dtype, bias):
    given_ = inputs(100, 300, 16, dtype, bias)

    found, plain = outcome(target_logps, *given_), outcome(reference_logps, *given_)

    wanted = outcome(reference_logps, *given_, torch.float64)
    assert found[0].dtype == torch.float32
    assert [value.dtype for value in found[1:]] == [dtype] * (len(found) - 1)
    for ours, theirs, exact in zip(found, plain, wanted, strict=True):
        assert distance(ours, exact) < 2 * distance(theirs, exact)


@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0])
def test_likely_tokens_keep_their_gradients_in_narrow_numbers(spread):
    """The more certain a token, the smaller its gradient, of which rounding must leave as much as in the reference."""
    hidden, weight, _, _ = inputs(200, 400, 64, torch.bfloat16, spread=spread / 8)
    target = (hidden.double() @ weight.double().T).argmax(-1)

    found, plain = (outcome(logps, hidden, weight, target, None) for logps in (target_logps, reference_logps))
    wanted = outcome(reference_logps, hidden, weight, target, None, torch.float64)

    assert found[0].max() <= 1e-3
    for ours, theirs, exact in zip(found, plain, wanted, strict=True):
        assert distance(ours, exact) < 2 * distance(theirs, exact)


def test_narrow_sums_do_not_stall():
    """Of 4000 equal rows the gradient of a word is 4000 times one row's: bfloat16 alone stops adding at 256."""
    hidden, weight, target, _ = inputs(1, 5, 4, torch.bfloat16)
    many = (hidden.expand(4000, -1), weight, target.expand(4000), None)

    found = outcome(target_logps, *many)
    wanted = outcome(reference_logps, *many, torch.float64)

    assert distance(found[2], wanted[2]) < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_running_maximum_gives_the_same(dtype):
    """What overflows on a CPU, and everything on a GPU, is summed up with it."""
    hidden, weight, target, bias = inputs(dtype=dtype, bias=True)
    layer = head._Layer(hidden, weight, bias)

    assert_close(layer._sums(target, True, shifted=True), layer._sums(target, True, shifted=False))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spread", [300.0, -300.0, 3000.0])
def test_huge_logits(dtype, spread):
    given_ = inputs(dtype=dtype, spread=spread, bias=True)

    found, wanted = outcome(target_logps, *given_), outcome(reference_logps, *given_, torch.float64)

    assert wanted[0].min() < -1000
    assert max(map(distance, found, wanted)) < (1e-12 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ahead", [200.0, 10_000.0])
def test_one_word_far_ahead_of_the_target(dtype, ahead):
    """Of all words but one nothing is left."""
    hidden = torch.tensor([[1.0], [0.0]], dtype=dtype, requires_grad=True)
    weight = torch.zeros(40, 1, dtype=dtype)
    weight[33] = ahead
    weight.requires_grad_()

    logps = target_logps(hidden, weight, torch.tensor([3, 3]))
    logps.sum().backward()

    assert_close(logps.detach().double(), torch.tensor([-ahead, -math.log(40)], dtype=torch.float64), rtol=5e-3, atol=0)
    assert_close(weight.grad[[3, 33], 0].double(), torch.tensor([1.0, -1.0], dtype=torch.float64), rtol=1e-2, atol=0)
    assert_close(
        hidden.grad[:, 0].double(), torch.tensor([-ahead, -ahead / 40], dtype=torch.float64), rtol=1e-2, atol=0
    )


def test_masked_words():
    hidden, weight, _, bias = inputs(rows=3, bias=True)
    bias[10:45] = -math.inf
    target = torch.tensor([0, 49, 12])

    found, wanted = (
        outcome(target_logps, hidden, weight, target, bias),
        outcome(reference_logps, hidden, weight, target, bias),
    )

    assert torch.isfinite(found[0]).tolist() == [True, True, False]
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_not_a_number_stays_one():
    hidden, weight, target, _ = inputs()
    hidden[4, 0] = math.nan

    found = target_logps(hidden, weight, target)

    assert found.isnan().nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck(bias):
    hidden, weight, target, bias_V = inputs(9, 33, 3, bias=bias)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias_V) if x is not None]

    assert torch.autograd.gradcheck(lambda h, w, b=None: target_logps(h, w, target, b), leaves)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("wanted", ["hidden", "weight", "bias"])
def test_only_the_gradients_asked_for(wanted, dtype):
    hidden, weight, target, bias = inputs(dtype=dtype, bias=True)
    leaves = {"hidden": hidden, "weight": weight, "bias": bias}
    every = dict(zip(leaves, outcome(reference_logps, hidden, weight, target, bias)[1:], strict=True))
    leaves[wanted].requires_grad_()

    target_logps(hidden, weight, target, bias).backward(torch.linspace(-1, 2, len(target), dtype=dtype))

    assert_close(leaves[wanted].grad, every[wanted])
    assert [leaf.grad is None for name, leaf in leaves.items() if name != wanted] == [True, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_strided_inputs(dtype):
    hidden, weight, target, bias = inputs(dtype=dtype, bias=True)
    wanted = outcome(reference_logps, hidden, weight, target, bias)

    leaves = [hidden.T.contiguous().T, weight.repeat_interleave(2, 1)[:, ::2], bias.repeat_interleave(3)[::3]]
    for leaf in leaves:
        leaf.requires_grad_()
    found = target_logps(leaves[0], leaves[1], target.repeat_interleave(2)[::2], leaves[2])
    found.backward(torch.linspace(-1, 2, len(target), dtype=dtype))

    assert not any(leaf.is_contiguous() for leaf in leaves)
    assert_close([found.detach(), *(leaf.grad for leaf in leaves)], wanted)


def test_under_checkpointing():
    given_ = inputs(bias=True)

    found = outcome(lambda *tensors: checkpoint(target_logps, *tensors, use_reentrant=False), *given_)

    assert_close(found, outcome(reference_logps, *given_))


def test_under_autocast():
    given_ = inputs(100, 300, 16, torch.float32, bias=True)

    with torch.autocast("cpu", torch.bfloat16):
        found, plain = outcome(target_logps, *given_), outcome(reference_logps, *given_)

    wanted = outcome(reference_logps, *given_)
    assert [value.dtype for value in found] == [torch.float32] * 4
    for ours, theirs, exact in zip(found, plain, wanted, strict=True):
        assert 1e-5 < distance(ours, exact) < 2 * distance(theirs, exact)


def test_the_same_bytes_again():
    given_ = inputs(40, 300, 16, torch.float32)

    first, second = outcome(target_logps, *given_), outcome(target_logps, *given_)

    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that any operation gives out."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(found) if isinstance(x, torch.Tensor))])
        return found


@pytest.mark.parametrize("logps", [target_logps, reference_logps])
def test_never_makes_all_logits(logps):
    rows, words, size = 60, 1000, 4
    hidden, weight, target, _ = inputs(rows, words, size, torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x), Largest() as largest:
        outcome(logps, hidden, weight, target, None)

    if logps is target_logps:
        assert largest.numel == words * size
        assert sum(x.numel() for x in saved) <= words * size + rows * (2 * size + 3)
    else:
        assert largest.numel == rows * words


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_kept_tiles_change_no_byte(dtype, bias, monkeypatch):
    given_ = inputs(40, 300, 16, dtype, bias)
    found = []
    for kept in (0, 1, 1000):
        monkeypatch.setattr(head, "KEPT_WEIGHTS", kept)
        found.append(outcome(target_logps, *given_))

    for with_kept in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], with_kept, strict=True))


@pytest.mark.parametrize("rows", [10, 100, 300])
def test_keeps_as_many_numbers_as_a_few_weights(rows):
    """However many positions there are; all but the last words' tiles of what is allowed."""
    hidden, weight, target, _ = inputs(rows, 300, 4)
    layer = head._Layer(hidden, weight, None, keeps=True)

    layer.log_probabilities(target, with_others=True)

    kept, most = sum(tile.numel() for tile in layer.kept.values()), head.KEPT_WEIGHTS * weight.numel()
    assert 0 < min(rows * 300, most) - SMALL_TILE[0] * rows < kept <= most


def test_a_second_backward_pass_makes_the_kept_tiles_again():
    hidden, weight, target, _ = inputs()
    logps = target_logps(hidden, weight.requires_grad_(), target)

    first = torch.autograd.grad(logps.sum(), weight, retain_graph=True)
    second = torch.autograd.grad(logps.sum(), weight)

    assert torch.equal(first[0], second[0])


def test_keeps_nothing_without_gradients():
    hidden, weight, target, _ = inputs()
    saved = []

    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        found = target_logps(hidden.requires_grad_(), weight.requires_grad_(), target)

    assert found.grad_fn is None
    assert saved == []


def test_keeps_the_weight_itself():
    hidden, weight, target, _ = inputs()
    saved = []

    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.data_ptr()) or x, lambda x: x):
        target_logps(hidden.requires_grad_(), weight.requires_grad_(), target)

    assert weight.data_ptr() in saved


@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 99))
def test_targets_are_found_alike_on_every_device(places, words, seed):
    """A CPU sorts them, a GPU looks in every tile; what is put there is what indexing gives."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(words, (places,), generator=generator)
    logits = torch.randn(words, places, generator=generator)
    value = torch.randn(places, generator=generator)
    spans = list(head._spans(words, 7))
    for kind in (head._Targets, head._SortedTargets):
        targets, changed = kind(spans, target), logits.clone()
        for number, span in enumerate(spans):
            targets.put(changed[span], number, value)

        assert torch.equal(changed, logits.index_put((target, torch.arange(places)), value))
