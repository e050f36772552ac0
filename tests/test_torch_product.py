"""Products on torch by oneDNN: those of `torch.addmm`, with its gradients."""

import keras
import pytest
from helpers import array, assert_close, images, tiny

torch = pytest.importorskip("torch")
kernels = pytest.importorskip("keras_vit.layers.kernels.torch")
product = kernels.product
pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch alone"),
    pytest.mark.skipif(
        not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN"
    ),
]


@pytest.fixture
def onednn(monkeypatch):
    """Every product by oneDNN, on any processor; gives those that were."""
    shapes, by_onednn = [], kernels._multiply_by_onednn

    def noted(a, b, *others):
        shapes.append((*a.shape, b.shape[1]))
        return by_onednn(a, b, *others)

    monkeypatch.setattr(kernels, "LARGE", 0)
    monkeypatch.setattr(kernels, "_has_onednn", lambda: True)
    monkeypatch.setattr(kernels, "_multiply_by_onednn", noted)
    return shapes


def tensors(rows=5, width=6, units=9):
    """Inputs, kernel and bias that want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, width), (width, units), (units,)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def gradients(multiply, given):
    outputs = multiply(*given)
    return outputs, torch.autograd.grad((outputs**2).sum(), given)


def addmm(inputs, kernel, bias):
    return torch.addmm(bias, inputs, kernel)


@pytest.mark.parametrize("units", [9, 4], ids=["wider", "narrower"])
def test_values_and_gradients(units, onednn):
    given = tensors(units=units)
    actual, expected = gradients(product, given), gradients(addmm, given)
    for one, other in zip(
        (actual[0], *actual[1]), (expected[0], *expected[1]), strict=True
    ):
        assert_close(one, other, tolerance=1e-6)
    assert len(onednn) == 3


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_joined_where_no_gradient_is_wanted(approximate, onednn, monkeypatch):
    inputs, kernel, bias = tensors()
    form = "tanh" if approximate else "none"
    expected = torch.nn.functional.gelu(addmm(inputs, kernel, bias), approximate=form)
    apart = []
    gelu = torch.nn.functional.gelu

    def noted(x, approximate):
        apart.append(x)
        return gelu(x, approximate=approximate)

    monkeypatch.setattr(torch.nn.functional, "gelu", noted)
    with torch.no_grad():
        outputs = product(inputs, kernel, bias, approximate)
    assert_close(outputs, expected, tolerance=1e-6)
    assert (len(onednn), len(apart)) == (1, 0)
    outputs = product(inputs, kernel, bias, approximate)
    assert_close(outputs, expected, tolerance=1e-6)
    assert (len(onednn), len(apart)) == (2, 1)
    actual = torch.autograd.grad(outputs.sum(), kernel)
    wanted = torch.autograd.grad(expected.sum(), kernel)
    assert_close(*actual, *wanted, tolerance=1e-6)


def test_parts_of_larger_kernels(onednn):
    inputs, kernel, bias = tensors()
    part, columns = kernel[:, 2:8], slice(2, 8)
    assert_close(product(inputs, part, bias[columns]), addmm(inputs, part, bias[columns]))
    assert onednn == [(5, 6, 6)]
    assert kernels._copied_if_cut(part).is_contiguous()


def test_only_the_gradients_that_are_asked_for(onednn):
    inputs, kernel, bias = tensors()
    outputs = product(inputs.detach(), kernel.detach(), bias)
    assert_close(torch.autograd.grad(outputs.sum(), bias)[0], [5.0] * 9)
    assert len(onednn) == 1


def test_gradients_of_gradients(onednn):
    given = tensors()
    second = []
    for multiply in (product, addmm):
        outputs = (multiply(*given) ** 2).sum()
        (first,) = torch.autograd.grad(outputs, given[1], create_graph=True)
        second.append(torch.autograd.grad((first**2).sum(), given[0])[0])
    assert_close(*second, tolerance=1e-6)


def test_a_model_has_its_results_and_gradients(onednn, monkeypatch):
    model = tiny(classifier_activation=None)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    results = []
    for is_used in (True, False):
        monkeypatch.setattr(kernels, "_has_onednn", lambda used=is_used: used)
        model.set_weights(before)
        outputs = array(model(images()))
        loss = model.train_on_batch(images(), outputs[::-1])
        results.append((outputs, loss, model.get_weights()))
        if is_used:
            assert len(onednn) > 20
    (outputs, loss, weights), (outputs_2, loss_2, weights_2) = results
    assert_close(outputs, outputs_2, tolerance=1e-5)
    assert loss == pytest.approx(loss_2, rel=1e-5)
    for one, other in zip(weights, weights_2, strict=True):
        assert_close(one, other, tolerance=1e-5)


def test_half_precision_and_small_products_are_torchs(onednn, monkeypatch):
    inputs, kernel, bias = (tensor.bfloat16() for tensor in tensors())
    assert product(inputs, kernel, bias).dtype == torch.bfloat16
    monkeypatch.setattr(kernels, "LARGE", 5 * 6 * 9 + 1)
    product(*tensors())
    assert onednn == []
    monkeypatch.setattr(kernels, "LARGE", 5 * 6 * 9)
    product(*tensors())
    assert onednn == [(5, 6, 9)]


def test_an_exported_program_has_torchs_own(onednn, monkeypatch):
    monkeypatch.setattr(kernels, "LARGE", 3 * 6 * 9)  # more than two rows

    class Module(torch.nn.Module):
        def forward(self, inputs, kernel, bias):
            return product(inputs, kernel, bias)

    rows = ({0: torch.export.Dim.DYNAMIC}, {}, {})
    given = tuple(tensors(rows=2))
    program = torch.export.export(Module(), given, dynamic_shapes=rows)
    many = tensors(rows=7)
    assert_close(program.module()(*many), addmm(*many))
    assert "aten.addmm.default" in {
        str(node.target) for node in program.graph.nodes if node.op == "call_function"
    }
    assert onednn == []


def test_torchs_counter_of_flops_counts_it(onednn):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        product(*tensors())
    assert counter.get_total_flops() == 2 * 5 * 6 * 9
    assert onednn == []


def test_transformations_of_functions_are_torchs(onednn):
    inputs, kernel, bias = (tensor.detach() for tensor in tensors())
    actual = torch.func.vmap(product, (0, None, None))(inputs[:, None], kernel, bias)
    assert_close(actual[:, 0], addmm(inputs, kernel, bias), tolerance=1e-6)
    assert onednn == []
