"""Every form of every contraction order of every structure equals the dense convolution of the expanded kernel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekron.algebra import FactorNetwork, Geometry, StructureError, dense_macs
from edgekron.algebra.lowering import default_forms, lower, valid_forms
from edgekron.algebra.steps import Shuffle, executed_macs
from edgekron.modules.layers import run_steps

KRONECKER = "r f1 c1 h1 w1, r f2 c2 h2 w2"


def kronecker(r: int, f: tuple[int, int], c: tuple[int, int], h: tuple[int, int], w: tuple[int, int]) -> FactorNetwork:
    parts = {"f": f, "c": c, "h": h, "w": w}
    return FactorNetwork(KRONECKER, {"r": r} | {k + str(i + 1): v[i] for k, v in parts.items() for i in (0, 1)})


STRUCTURES = {
    "kronecker B spatial": kronecker(2, (4, 2), (2, 3), (1, 3), (1, 3)),
    "kronecker A spatial": kronecker(2, (2, 4), (3, 2), (3, 1), (3, 1)),
    "kronecker separable": kronecker(3, (2, 2), (2, 2), (3, 1), (1, 3)),
    "kronecker 2x2 of 2x2": kronecker(2, (2, 2), (2, 2), (2, 2), (2, 2)),
    "kronecker even 4x1": kronecker(2, (2, 2), (2, 2), (4, 1), (1, 2)),
    "kronecker 5x5 of 1x1": kronecker(2, (3, 2), (2, 2), (5, 1), (5, 1)),
    "spatial SVD": kronecker(3, (4, 1), (1, 4), (1, 3), (3, 1)),
    "channel SVD": kronecker(3, (4, 1), (1, 4), (1, 3), (1, 3)),
    "depthwise separable": kronecker(2, (6, 1), (4, 1), (1, 3), (1, 3)),
    "rank one, prime": kronecker(1, (5, 1), (1, 3), (1, 3), (3, 1)),
    "pointwise": kronecker(2, (2, 3), (2, 2), (1, 1), (1, 1)),
    "grouped kronecker": FactorNetwork(
        "g r f1 c1 h1 w1, g r f2 c2",
        {"g": 2, "r": 2, "f1": 2, "c1": 2, "h1": 3, "w1": 3, "f2": 2, "c2": 2},
    ),
    "tucker-2": FactorNetwork("f1 r1, r1 r2 h1 w1, r2 c1", {"f1": 4, "r1": 3, "r2": 2, "h1": 3, "w1": 3, "c1": 5}),
    "CP": FactorNetwork("f1 r, h1 r, w1 r, c1 r", {"f1": 4, "r": 3, "h1": 3, "w1": 3, "c1": 5}),
    "tensor train": FactorNetwork(
        "h1 w1 r1, r1 c1 f1 r2, r2 c2 f2",
        {"h1": 3, "w1": 3, "r1": 2, "c1": 2, "f1": 2, "r2": 3, "c2": 2, "f2": 3},
    ),
    "tensor ring": FactorNetwork(
        "r1 f1 r2, r2 h1 w1 r3, r3 c1 r1",
        {"r1": 2, "f1": 4, "r2": 2, "h1": 3, "w1": 3, "r3": 2, "c1": 3},
    ),
}
GEOMETRIES = {
    "plain": Geometry(),
    "same": Geometry(padding=((1, 1), (1, 1))),
    "stride 2": Geometry(stride=(2, 2), padding=((1, 1), (1, 1))),
    "stride (2, 1), dilation (1, 2)": Geometry((2, 1), (1, 2), ((1, 1), (2, 2))),
    "asymmetric": Geometry((1, 3), (2, 1), ((0, 2), (3, 1))),
}


def random_factors(network: FactorNetwork, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(network.factor_shape(i), dtype=torch.float64, generator=generator) for i in range(len(network.axes))
    ]


def dense(x: torch.Tensor, kernel: torch.Tensor, geometry: Geometry, groups: int, bias: torch.Tensor) -> torch.Tensor:
    (top, bottom), (left, right) = geometry.padding
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, kernel, bias, geometry.stride, 0, geometry.dilation, groups)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("network", STRUCTURES.values(), ids=STRUCTURES)
def test_every_form_of_every_order_equals_the_dense_convolution(network: FactorNetwork, geometry: Geometry) -> None:
    factors = random_factors(network)
    kernel = network.expand(factors)
    f = kernel.shape[0]
    x = torch.randn(2, network.total("g") * network.total("c"), 11, 13, dtype=torch.float64)
    bias = torch.randn(f, dtype=torch.float64)
    reference = dense(x, kernel, geometry, network.total("g"), bias)
    cases = 0
    for order in network.orders():
        stages = network.stages(order, geometry)
        for forms in itertools.product(*(valid_forms(stage, "torch") for stage in stages)):
            steps = lower(network, order, geometry, forms, bias=True)
            y = run_steps(steps, x, factors, bias)
            assert y.shape == reference.shape
            assert (y - reference).abs().max() <= 1e-10 * reference.abs().max()
            if not any(form == "mix" for form in forms):
                assert executed_macs(steps, (11, 13)) == network.macs(order, (11, 13), geometry)
            cases += 1
    assert cases >= 2


#: stride, dilation, what is cut from both ends, and what is added behind
TRANSPOSED = {
    "stride 2": ((2, 2), (1, 1), (0, 0), (0, 0)),
    "stride (2, 3), all else": ((2, 3), (2, 1), (1, 0), (1, 2)),
    "stride (1, 2), dilation": ((1, 2), (1, 2), (0, 1), (0, 1)),
}


@pytest.mark.parametrize("geometry", TRANSPOSED.values(), ids=TRANSPOSED)
@pytest.mark.parametrize("network", STRUCTURES.values(), ids=STRUCTURES)
def test_every_order_equals_the_transposed_convolution(
    network: FactorNetwork, geometry: tuple[tuple[int, int], ...]
) -> None:
    stride, dilation, cut, extra = geometry
    factors = random_factors(network)
    kernel, g = network.expand(factors), network.total("g")
    f, c, *window = kernel.shape
    cut = tuple(min(p, d * (k - 1)) for p, d, k in zip(cut, dilation, window, strict=True))
    pads = [(d * (k - 1) - p, d * (k - 1) - p + e) for d, k, p, e in zip(dilation, window, cut, extra, strict=True)]
    spread = Geometry(dilation=dilation, padding=(pads[0], pads[1]), upsample=stride)
    weight = kernel.reshape(g, f // g, c, *window).transpose(1, 2).reshape(g * c, f // g, *window).flip(2, 3)
    x = torch.randn(2, g * c, 5, 6, dtype=torch.float64)
    bias = torch.randn(f, dtype=torch.float64)
    expected = F.conv_transpose2d(x, weight, bias, stride, cut, extra, g, dilation)
    assert spread.output_size((5, 6), window) == tuple(expected.shape[2:])
    assert dense_macs(network.kernel_shape, (5, 6), spread) == 5 * 6 * kernel.numel()
    for index, order in enumerate(network.orders()):
        stages = network.stages(order, spread)
        # Two choices for each order, all of them in turn.
        valid = list(itertools.product(*(valid_forms(stage, "torch") for stage in stages)))
        for forms in (valid[index % len(valid)], valid[-1 - index % len(valid)], ("dense",)):
            steps = lower(network, order, spread, forms, bias=True)
            y = run_steps(steps, x, factors, bias)
            torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
            if forms != ("dense",) and all(form == "grouped" for form in forms):
                assert executed_macs(steps, (5, 6)) == network.macs(order, (5, 6), spread)


def test_geometries_that_are_no_layers_are_refused() -> None:
    with pytest.raises(StructureError, match="no layer's geometry"):
        Geometry(stride=(2, 1), upsample=(1, 2))
    network = STRUCTURES["kronecker B spatial"]
    for padding in (((3, 0), (0, 0)), ((0, 0), (0, 4))):
        with pytest.raises(StructureError, match="reaches beyond a window"):
            lower(network, (0, 1), Geometry(padding=padding, upsample=(2, 2)), ("dense",), bias=False)


@pytest.mark.parametrize("network", STRUCTURES.values(), ids=STRUCTURES)
def test_dense_form_and_numpy_weights(network: FactorNetwork) -> None:
    factors = random_factors(network)
    geometry = GEOMETRIES["same"]
    (step,) = lower(network, next(network.orders()), geometry, ("dense",), bias=True)
    kernel = network.expand(factors)
    numpy_kernel = step.weight.evaluate([f.numpy() for f in factors])
    np.testing.assert_allclose(numpy_kernel, kernel.numpy(), rtol=1e-12, atol=1e-12)
    assert executed_macs((step,), (9, 9)) == dense_macs(network.kernel_shape, (9, 9), geometry)


def test_kronecker_needs_no_shuffle_where_fold_meets_matmul() -> None:
    network = STRUCTURES["kronecker B spatial"]
    steps = lower(network, (1, 0), GEOMETRIES["same"], ("fold", "matmul"), bias=True)
    assert not any(isinstance(step, Shuffle) for step in steps)
    mixed = lower(network, (1, 0), GEOMETRIES["same"], ("fold", "mix"), bias=True)
    assert not any(isinstance(step, Shuffle) for step in mixed)
    folded = lower(network, (1, 0), GEOMETRIES["same"], ("fold", "fold"), bias=True)
    assert sum(isinstance(step, Shuffle) for step in folded) == 2


@pytest.mark.parametrize("target", ["onnx", "tflite", "torch"])
@pytest.mark.parametrize("network", STRUCTURES.values(), ids=STRUCTURES)
def test_default_forms_are_valid(network: FactorNetwork, target: str) -> None:
    for order in network.orders():
        stages = network.stages(order, GEOMETRIES["stride 2"])
        for stage, form in zip(stages, default_forms(stages, target), strict=True):
            assert form in valid_forms(stage, target)


@pytest.mark.parametrize(
    ("forms", "words"),
    [(("fold",), "give one for each"), (("fold", "sideways"), "not exact"), (("matmul", "fold"), "not exact")],
)
def test_wrong_forms_are_refused(forms: tuple[str, ...], words: str) -> None:
    with pytest.raises(StructureError, match=words):
        lower(STRUCTURES["kronecker B spatial"], (1, 0), Geometry(), forms, bias=False)
