"""Rebalanced factors make the same kernel, and integers lose less of what runs between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.exporters.quantize import ranges
from edgekron.exporters.quantize.ranges import layer_ranges
from edgekron.exporters.quantize.rebalance import Ranges, expected_ranges, rebalance
from edgekron.graph import Factorized

NETWORKS = {
    "channel svd": FactorNetwork("r f1, r c1 h1 w1", {"r": 6, "f1": 12, "c1": 10, "h1": 3, "w1": 3}),
    "spatial svd": FactorNetwork("r f1 w1, r c1 h1", {"r": 5, "f1": 12, "c1": 10, "h1": 3, "w1": 3}),
    "kronecker": FactorNetwork(
        "r f1 c1, r f2 c2 h1 w1", {"r": 3, "f1": 3, "f2": 4, "c1": 2, "c2": 5, "h1": 3, "w1": 3}
    ),
    "one term": FactorNetwork("f1 c1, f2 c2 h1 w1", {"f1": 3, "f2": 4, "c1": 2, "c2": 5, "h1": 3, "w1": 3}),
    "tucker": FactorNetwork("f1 r1, r1 r2 h1 w1, r2 c1", {"f1": 12, "r1": 4, "r2": 6, "c1": 10, "h1": 3, "w1": 3}),
    "cp": FactorNetwork("f1 r, r h1, r w1, r c1", {"f1": 12, "r": 7, "c1": 10, "h1": 3, "w1": 3}),
    "tensor train": FactorNetwork(
        "h1 w1 r0, r0 f1 c1 r1, r1 f2 c2",
        {"h1": 3, "w1": 3, "r0": 4, "r1": 6, "f1": 3, "f2": 4, "c1": 2, "c2": 5},
    ),
    "tensor ring": FactorNetwork(
        "r0 f1 r1, r1 h1 w1 r2, r2 c1 r0", {"r0": 2, "r1": 3, "r2": 4, "f1": 12, "c1": 10, "h1": 3, "w1": 3}
    ),
    "groups": FactorNetwork("g1 r f1, g1 r c1 h1 w1", {"g1": 2, "r": 4, "f1": 6, "c1": 5, "h1": 3, "w1": 3}),
}
GEOMETRY = Geometry(stride=(1, 2), dilation=(2, 1), padding=((2, 1), (1, 0)))


def layer(name: str, seed: int = 0, unbalanced: bool = True, order: tuple[int, ...] | None = None) -> Factorized:
    """Random factors, with ranks of very different sizes that cancel in the kernel."""
    network, rng = NETWORKS[name], np.random.default_rng(seed)
    tensors = [rng.standard_normal(network.factor_shape(i)) for i in range(len(network.axes))]
    ranks = sorted({a for axes in network.axes for a in axes if a[0] == "r"})
    for axis in ranks if unbalanced else ():
        first, second = [i for i, axes in enumerate(network.axes) if axis in axes][:2]
        scale = np.exp(2 * rng.standard_normal(network.sizes[axis])) * rng.choice([-1, 1], network.sizes[axis])
        for index, factor in ((first, scale), (second, 1 / scale)):
            axes = network.axes[index]
            tensors[index] *= factor.reshape([-1 if a == axis else 1 for a in axes])
    order = order or tuple(reversed(range(len(tensors))))
    made = tuple(t.astype(np.float32) for t in tensors)
    return Factorized("layer", "conv", network, made, None, order, GEOMETRY)


def images(name: str) -> np.ndarray:
    channels = NETWORKS[name].total("g") * NETWORKS[name].total("c")
    return np.random.default_rng(1).standard_normal((2, channels, 9, 8)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("with_data", [False, True])
def test_the_kernel_stays_the_same(name: str, with_data: bool) -> None:
    before = layer(name)
    for order in before.network.orders():
        given = replace(before, order=order)
        after = rebalance(given, list(layer_ranges(given, images(name))) if with_data else None)
        gap = np.abs(after.kernel() - before.kernel()).max()
        assert gap <= 2e-6 * np.abs(before.kernel()).max()
        assert after.order == order


def run(given: Factorized, x: np.ndarray, *, integers: bool) -> np.ndarray:
    """The layer stage by stage, its weights and what runs between the stages rounded to 8 bits if asked."""
    network, axes = given.network, [*given.network.parts("g"), *given.network.parts("c")]
    value = torch.from_numpy(x).reshape(len(x), *(network.sizes[a] for a in axes), *x.shape[2:])
    stages = network.stages(given.order, given.geometry)
    for position, stage in enumerate(stages):
        tensor = given.tensors[stage.factor]
        if integers:
            names = network.axes[stage.factor]
            # One scale for each output channel, as both runtimes have them.
            inner = tuple(i for i, a in enumerate(names) if a in stage.contracted or a[0] in "hw")
            step = np.abs(tensor).max(axis=inner, keepdims=True) / 127
            tensor = (np.round(tensor / step) * step).astype(np.float32)
        value = ranges._run(stage, network.axes[stage.factor], tensor, value, axes)
        axes = [*stage.carried, *stage.batch, *stage.new]
        if integers and position < len(stages) - 1:
            # Where all weights that matter were rounded away, nothing is left to round.
            step = (float(value.max()) - float(value.min())) / 255 or 1.0
            value = torch.round(value / step) * step
    order = [axes.index(a) + 1 for a in (*network.parts("g"), *network.parts("f"))]
    moved = value.permute(0, *order, value.ndim - 2, value.ndim - 1)
    return moved.reshape(len(x), -1, *value.shape[-2:]).numpy()


def dense(given: Factorized, x: np.ndarray) -> np.ndarray:
    (top, bottom), (left, right) = GEOMETRY.padding
    y = F.conv2d(
        F.pad(torch.from_numpy(x), (left, right, top, bottom)),
        torch.from_numpy(given.kernel()),
        stride=GEOMETRY.stride,
        dilation=GEOMETRY.dilation,
        groups=given.network.total("g"),
    )
    return y.numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_whose_ranges_are_taken_are_those_of_the_layer(name: str) -> None:
    given, x = layer(name, unbalanced=False), images(name)
    for order in given.network.orders():
        wanted, made = dense(given, x), run(replace(given, order=order), x, integers=False)
        assert np.abs(made - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_ranges_are_those_of_each_rank() -> None:
    given, x = layer("channel svd"), images("channel svd")
    (top, bottom), (left, right) = GEOMETRY.padding
    first = F.conv2d(
        F.pad(torch.from_numpy(x), (left, right, top, bottom)),
        torch.from_numpy(given.tensors[1]),
        stride=GEOMETRY.stride,
        dilation=GEOMETRY.dilation,
    )
    (found,) = layer_ranges(given, x)
    assert found.axes == ("r",)
    np.testing.assert_allclose(found.low, first.amin(dim=(0, 2, 3)).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.high, first.amax(dim=(0, 2, 3)).numpy(), rtol=1e-6)


def sqnr(wanted: np.ndarray, made: np.ndarray) -> float:
    return 10 * float(np.log10(np.square(wanted).sum() / np.square(wanted - made).sum()))


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "one term"])
def test_integers_lose_less_of_unbalanced_factors(name: str) -> None:
    x = images(name)
    gains = []
    for seed in range(5):
        given = layer(name, seed)
        wanted = dense(given, x)
        before = sqnr(wanted, run(given, x, integers=True))
        by_data = rebalance(given, list(layer_ranges(given, x)))
        blind = rebalance(given)
        again = rebalance(by_data, list(layer_ranges(by_data, x)))
        gains.append([sqnr(wanted, run(after, x, integers=True)) - before for after in (by_data, blind, again)])
    data, blind_gain, twice = np.mean(gains, axis=0)
    assert min(data, blind_gain) >= 6.0
    # What is balanced already stays as good.
    assert twice >= data - 0.5


def test_expected_ranges_are_those_of_white_noise() -> None:
    given = layer("kronecker", unbalanced=False)
    x = np.random.default_rng(2).standard_normal((500, 5, 3, 3)).astype(np.float32)
    (expected,) = expected_ranges(given)
    first = np.einsum("rfchw,nchw->nrf", given.tensors[1], x)
    assert expected.axes == ("r",)
    np.testing.assert_allclose(expected.high, first.std(axis=0).max(axis=1), rtol=0.1)
    np.testing.assert_array_equal(expected.low, -expected.high)


def test_a_rank_that_carries_nothing_is_left_alone() -> None:
    given = layer("channel svd")
    tensors = [tensor.copy() for tensor in given.tensors]
    tensors[1][2] = 0.0
    silent = replace(given, tensors=tuple(tensors))
    after = rebalance(silent, list(layer_ranges(silent, images("channel svd"))))
    assert all(np.isfinite(tensor).all() for tensor in after.tensors)
    assert np.abs(after.kernel() - silent.kernel()).max() <= 2e-6 * np.abs(silent.kernel()).max()
    nothing = replace(given, tensors=tuple(np.zeros_like(t) for t in given.tensors))
    assert not rebalance(nothing).kernel().any()


def test_ranges_are_joined_and_flipped() -> None:
    one = Ranges(("r0", "r1"), np.array([[-1.0, -2.0]]), np.array([[3.0, 4.0]]))
    two = Ranges(("r0", "r1"), np.array([[-5.0, 0.0]]), np.array([[1.0, 9.0]]))
    both = one.joined(two)
    assert both.low.tolist() == [[-5.0, -2.0]]
    assert both.high.tolist() == [[3.0, 9.0]]
    low, high = both.along("r1", {"r0": np.array([-2.0])})
    assert (low.tolist(), high.tolist()) == ([-6.0, -18.0], [10.0, 4.0])
