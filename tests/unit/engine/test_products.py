import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from amopo_core.engine import products
from amopo_core.engine.lean import _GatedProjection
from amopo_core.engine.products import by_onednn, intel_made_it, linear, product, product_over_rows

pytestmark = pytest.mark.usefixtures("library")


def randoms(*shapes, dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]


def test_a_product_by_hand():
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 1.0]])

    assert product(left, right).tolist() == [[12.0], [34.0]]
    assert product(left, right, torch.tensor([0.5])).tolist() == [[12.5], [34.5]]
    assert product_over_rows(left, left).tolist() == [[10.0, 14.0], [14.0, 20.0]]


@pytest.mark.parametrize("rows", [(300,), (3, 100)])
@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1)], ids=str)
def test_it_errs_no_more_than_torch_however_its_arguments_lie(rows, turned):
    left, right, bias = randoms((*rows, 70), (50, 70), (50,))
    lying = [x.mT.contiguous().mT if place in turned else x for place, x in enumerate((left, right))]
    exact = F.linear(left.double(), right.double(), bias.double())

    def error(found):
        return float((found - exact).norm())

    assert error(product(*lying, bias)) <= 1.5 * error(F.linear(left, right, bias))


@pytest.mark.parametrize("names", [(40, 7), (7, 40)])
def test_a_product_over_rows_is_a_weights_gradient(names):
    by_output, by_input = randoms((300, names[0]), (300, names[1]))

    assert_close(product_over_rows(by_output, by_input), by_output.t() @ by_input, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_layers_outcome_and_gradients_are_torchs(bias, frozen):
    layer = nn.Linear(24, 40, bias=bias).requires_grad_(not frozen)
    (states,) = randoms((2, 30, 24))
    states.requires_grad_()
    wanted = [states, *(layer.parameters() if not frozen else ())]

    def outcome(forward):
        found = forward(states)
        return [found, *torch.autograd.grad((found * torch.linspace(1, 2, 40)).square().mean(), wanted)]

    assert_close(outcome(lambda x: linear(x, layer.weight, layer.bias)), outcome(layer), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_layer_keeps_no_input(frozen):
    layer, kept = nn.Linear(24, 40).requires_grad_(not frozen), []

    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        linear(torch.ones(30, 24, requires_grad=True), layer.weight, layer.bias)

    assert ((30, 24) in kept) is not frozen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_torchs_own(dtype):
    left, right = randoms((30, 24), (40, 24), dtype=dtype)

    assert not by_onednn(left, right)
    assert torch.equal(product(left, right), F.linear(left, right))
    assert torch.equal(linear(left, right, None), F.linear(left, right))


def test_autocast_rounds_as_it_does_elsewhere():
    left, right = randoms((30, 24), (40, 24))

    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(left, right, None), F.linear(left, right))


def test_what_is_compiled_is_left_to_the_compiler():
    layer, (states,) = nn.Linear(24, 40), randoms((30, 24))
    gate, up, down = randoms((30, 40), (30, 40), (24, 40))
    compiled = torch.compile(lambda x: linear(x, layer.weight, layer.bias), backend="aot_eager", fullgraph=True)
    projected = torch.compile(_GatedProjection.apply, backend="aot_eager", fullgraph=True)

    assert_close(compiled(states), layer(states))
    wanted, found = gate.clone().requires_grad_(), gate.clone().requires_grad_()
    _GatedProjection.apply(wanted, up, down).sum().backward()
    projected(found, up, down).sum().backward()
    assert_close(found.grad, wanted.grad)


def test_what_is_no_plain_matrix_is_torchs(library):
    class Own(torch.Tensor):
        pass

    assert by_onednn(torch.ones(2, 2), nn.Parameter(torch.ones(2, 2))) is (library == "oneDNN")
    assert not by_onednn(torch.ones(2, 2), torch.ones(2, 2).as_subclass(Own))
    assert not by_onednn(torch.ones(0, 2))
    assert not by_onednn(torch.ones(2, 2, device="meta"))
    assert product(torch.ones(0, 2), torch.ones(3, 2)).shape == (0, 3)


def test_it_is_that_library_that_multiplies_and_always_to_the_same_bytes(library):
    left, right = randoms((1000, 256), (512, 256))

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = [product(left, right) for _ in range(5)]

    assert all(torch.equal(found[0], other) for other in found)
    known = {"mkldnn::_linear_pointwise": "oneDNN", "aten::mm": "MKL", "aten::addmm": "MKL"}
    assert {known[each.key] for each in profile.key_averages() if each.key in known} == {library}


@pytest.mark.parametrize(
    ("said", "intels"),
    [
        ("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Common KVM processor\n", True),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9B45\n", False),
        ("processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\n", False),
    ],
)
def test_whose_processor_it_is(said, intels, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(said)
    monkeypatch.setattr(products, "CPU_INFO", file)

    assert intel_made_it() is intels


def test_whose_processor_it_is_where_there_is_no_such_file(tmp_path, monkeypatch):
    monkeypatch.setattr(products, "CPU_INFO", tmp_path / "none")

    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel")
    assert intel_made_it()
    monkeypatch.setattr("platform.processor", lambda: "")
    assert not intel_made_it()
