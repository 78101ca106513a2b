"""Layers say the same of a node without reading its kernel, also when the node is replaced afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.algebra import FactorNetwork
from edgekron.compression.report import dense_row
from edgekron.graph import Hub, load
from edgekron.graph.activations import peak_activations
from edgekron.graph.cost import cost
from edgekron.pruning import ChannelStructure
from edgekron.pruning.weights import write_layer
from tests import networks


@pytest.fixture(scope="module")
def original() -> Hub:
    return networks.hub()


@pytest.fixture(scope="module")
def factorized() -> Hub:
    return networks.compressed()


@pytest.fixture
def dense(original: Hub) -> Hub:
    return original.copy()


@pytest.fixture
def small(factorized: Hub) -> Hub:
    return factorized.copy()


@pytest.fixture
def expansions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The factors that were multiplied out, one entry each time."""
    found: list[str] = []
    expand = FactorNetwork.expand

    def counted(network: FactorNetwork, tensors: object) -> object:
        found.append(network.factors)
        return expand(network, tensors)

    monkeypatch.setattr(FactorNetwork, "expand", counted)
    return found


def test_shapes_costs_and_names_expand_no_kernel(small, dense, expansions, tmp_path):
    layers = small.layers()
    factorized = [layer for layer in layers if layer.factorized is not None]
    assert factorized
    for layer in layers:
        assert layer.has_kernel
        assert layer.kernel_shape == dense.layer(layer.name).kernel_shape
        assert layer.dense_macs == dense.layer(layer.name).dense_macs
        assert cost(layer).parameters <= layer.dense_parameters == np.prod(layer.kernel_shape)
        assert dense_row(layer, "").kernel == layer.kernel_shape
        assert small.layer(layer.name).frozen_reason is None
    assert ChannelStructure(small).costs(set())["macs"] == sum(layer.dense_macs for layer in layers)
    assert peak_activations(small) == peak_activations(dense)
    small.save(tmp_path / "small.onnx")
    again = Hub.open(tmp_path / "small.onnx").copy()
    for layer in factorized:
        again.factorize(layer.name, layer.factorized)
        again.restore(layer.name, dense.layer(layer.name))
    assert again.layers()[0].kernel_shape == layers[0].kernel_shape
    assert expansions == []


def test_a_kernel_is_expanded_once_and_by_who_asks(small, expansions):
    first, second = small.layer("block"), small.layer("block")
    kernel = first.kernel
    assert first.kernel is kernel
    assert expansions == [first.factorized.network.factors]
    np.testing.assert_array_equal(second.kernel, kernel)
    assert len(expansions) == 2


def test_a_layer_is_what_the_hub_was_when_it_was_asked(small, dense):
    copy, before, unread = small.copy(), small.layer("block"), small.layer("block")
    kernel = before.kernel
    small.factorize("block", replace(before.factorized, tensors=tuple(2 * t for t in before.factorized.tensors)))
    terms = len(before.factorized.tensors)
    np.testing.assert_allclose(small.layer("block").kernel, 2**terms * kernel, rtol=1e-6)
    np.testing.assert_array_equal(unread.kernel, kernel)
    np.testing.assert_array_equal(copy.layer("block").kernel, kernel)
    small.restore("block", dense.layer("block"))
    assert small.layer("block").factorized is None
    np.testing.assert_array_equal(unread.kernel, kernel)


def test_an_ordinary_layer_keeps_its_kernel_when_the_node_gets_another(dense):
    copy, unread = dense.copy(), dense.layer("down")
    kernel = dense.layer("down").kernel.copy()
    write_layer(dense, dense.layer("down"), 3 * kernel, np.zeros(12, np.float32))
    for name, layer in (("asked before", unread), ("of a copy", copy.layer("down"))):
        np.testing.assert_array_equal(layer.kernel, kernel, err_msg=name)
        assert layer.bias.any(), name
    np.testing.assert_array_equal(dense.layer("down").kernel, 3 * kernel)


class Kinds(nn.Module):
    """One layer of each layout of a stored weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, (3, 2), groups=2)
        self.up = nn.ConvTranspose2d(6, 4, (2, 3), stride=2, groups=2)
        self.deep = nn.Conv2d(4, 4, 3, groups=4)
        self.rows = nn.Linear(4, 5)
        self.columns = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.deep(self.up(self.conv(x)))
        return self.rows(x.mean((2, 3))) @ self.columns


def test_the_shape_of_every_kind_of_weight_is_known_without_its_kernel():
    module = Kinds().eval()
    layers = load(module, input_shape=(4, 8, 8)).layers()
    shapes = [(6, 2, 3, 2), (4, 3, 2, 3), (4, 1, 3, 3), (5, 4, 1, 1), (3, 5, 1, 1)]
    assert [layer.kernel_shape for layer in layers] == shapes
    assert [layer.kernel.shape for layer in layers] == shapes
    np.testing.assert_array_equal(layers[0].kernel, module.conv.weight.detach())
    np.testing.assert_array_equal(layers[1].kernel[:2, :, ::-1, ::-1], module.up.weight.detach()[:3].transpose(0, 1))
    np.testing.assert_array_equal(layers[3].kernel[:, :, 0, 0], module.rows.weight.detach())
    np.testing.assert_array_equal(layers[4].kernel[:, :, 0, 0], module.columns.detach().T)


class Computed(nn.Module):
    """A convolution whose kernel is computed from its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, x.mean((0, 2, 3)).reshape(1, 2, 1, 1))


def test_a_computed_kernel_is_none():
    (layer,) = load(Computed(), input_shape=(2, 6, 6)).layers()
    assert not layer.has_kernel
    assert layer.kernel is None
    with pytest.raises(ValueError, match="has no constant kernel: it has weights that the graph computes"):
        _ = layer.kernel_shape
