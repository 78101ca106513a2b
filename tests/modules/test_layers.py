"""Factorized layers from a hub: one builder for a user's own module and for a graph, in the forms of the plan."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekron.algebra.lowering import Conv
from edgekron.compression.compressor import compress
from edgekron.graph import Hub, load
from edgekron.modules import FactorizedLinear, GraphModule, factorize_module, factorized_layer
from edgekron.modules.layers import geometry_of
from tests.networks import onnx_output


class Mixed(nn.Module):
    """A convolution with a stride, one transposed, one in groups, and fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 12, 3, stride=2, padding=(1, 2), dilation=(1, 2))
        self.up = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.pairs = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.hidden, self.classifier = nn.Linear(16, 32), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(torch.relu(self.conv(x))))
        return self.classifier(torch.relu(self.hidden(torch.relu(self.pairs(x)).mean((2, 3)))))


@pytest.fixture(scope="module")
def mixed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mixed().eval()


@pytest.fixture(scope="module")
def wide() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 3)).eval()


def small(module: nn.Module, shape: tuple[int, ...], method: str, ratio: float = 2.5) -> Hub:
    return compress(load(module, input_shape=shape), model="it", ratios={"parameters": ratio}, method=method).hub


def test_a_train_that_the_plan_expands_is_expanded_in_the_users_own_module(wide):
    hub = small(wide, (1, 8, 8), "tt-matrix")
    layer = hub.layer("1").factorized
    assert layer.forms["onnx"] == ("expand",)
    module = factorize_module(wide, hub)
    found = module.get_submodule("1")
    assert found.forms == ("dense",)
    (step,) = found._steps
    assert isinstance(step, Conv)
    assert step.weight.shape == layer.network.kernel_shape
    contracted = FactorizedLinear(layer.network, list(found.factors), found.bias, order=layer.order)
    assert len(contracted._steps) > 1
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    rows = torch.from_numpy(x).flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(found(rows), contracted(rows), rtol=1e-4, atol=1e-5)
        assert np.abs(module(torch.from_numpy(x)).numpy() - onnx_output(hub, x)).max() < 1e-5


@pytest.mark.parametrize("method", ["kronecker", "channel-svd", "tucker", "tt", "tt-matrix"])
def test_a_module_and_a_graph_get_the_same_layers(mixed, method):
    hub = small(mixed, (4, 9, 8), method)
    factorized = [layer.name for layer in hub.layers() if layer.factorized is not None]
    assert len(factorized) > 2
    ours, graph = factorize_module(mixed, hub), GraphModule(hub)
    for name in factorized:
        one, other = ours.get_submodule(name), graph.get_submodule(graph.layers[name])
        assert type(one) is type(other)
        assert (one.forms, one.order, one.geometry) == (other.forms, other.order, other.geometry)
        assert one.state_dict().keys() == other.state_dict().keys()
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_factors_have_equal_norms_and_the_kernel_of_the_hub(mixed):
    for layer in small(mixed, (4, 9, 8), "kronecker").layers():
        if layer.factorized is None:
            continue
        found = factorized_layer(layer.factorized)
        norms = [float(factor.detach().square().mean().sqrt()) for factor in found.factors]
        assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-5)
        assert np.abs(found.kernel().detach().numpy() - layer.factorized.kernel()).max() < 1e-6


def test_a_layer_in_the_place_of_another_has_its_type_and_its_mode_of_training(mixed):
    hub, double = small(mixed, (4, 9, 8), "kronecker"), copy.deepcopy(mixed).double().train()
    layer = next(layer for layer in hub.layers() if layer.factorized is not None and layer.kind == "conv")
    replaced = double.get_submodule(layer.name)
    found = factorized_layer(layer.factorized, replaced)
    assert found.training
    assert {tensor.dtype for tensor in found.state_dict().values()} == {torch.float64}
    assert found.geometry == geometry_of(replaced)
    assert np.abs(found.kernel().detach().numpy() - layer.factorized.kernel()).max() < 1e-7
