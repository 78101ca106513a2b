"""Weights that are computed from others become plain ones on a copy, with the same outputs and the layer's own name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from edgekron.algebra import FactorNetwork
from edgekron.errors import UserError
from edgekron.exporters.verify import open_version
from edgekron.graph import Factorized, Hub, load
from edgekron.graph.parametrizations import is_parametrized, plain_copy
from edgekron.modules.factorize import factorize_module


def hook_weight_norm(layer: nn.Module) -> nn.Module:
    """The deprecated form, which networks trained with it still have."""
    with pytest.warns(FutureWarning, match="deprecated"):
        return nn.utils.weight_norm(layer)


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "hook weight_norm": hook_weight_norm,
    "hook spectral_norm": spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "pruned twice": lambda layer: prune.random_unstructured(prune.l1_unstructured(layer, "weight", 0.3), "weight", 0.2),
    "weight and bias": lambda layer: prune.l1_unstructured(parametrizations.weight_norm(layer), "bias", 0.5),
}


def network(kind: str) -> nn.Module:
    """Three layers: a plain one, one with a parametrization, and one that has the same original weight."""
    torch.manual_seed(0)
    first, second, third = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3)
    third.weight = second.weight
    module = nn.Sequential(first, nn.ReLU(), KINDS[kind](second), nn.ReLU(), third)
    # In training, for the estimates of spectral norms; hooks leave weights with gradients behind.
    module(torch.randn(2, 8, 9, 9))
    return module


def run(hub: Hub, x: Tensor) -> np.ndarray:
    return open_version(hub).run(x.numpy())[hub.output_names[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_has_plain_weights_and_the_module_stays(kind: str) -> None:
    module = network(kind)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    hub = load(module, input_shape=(8, 9, 9))
    assert module.training
    assert is_parametrized(module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert [(layer.name, layer.frozen_reason) for layer in hub.layers()] == [("0", None), ("2", None), ("4", None)]
    x = torch.randn(2, 8, 9, 9)
    wanted = module.eval()(x).detach().numpy()
    np.testing.assert_allclose(run(hub, x), wanted, atol=1e-5 * np.abs(wanted).max())
    # Factorized, it is the same layer of the graph and of the module.
    sizes = FactorNetwork("f1 r1, r1 c1 h1 w1", {"f1": 16, "r1": 5, "c1": 16, "h1": 3, "w1": 3})
    random = np.random.default_rng(0)
    tensors = tuple(random.standard_normal(sizes.factor_shape(i)).astype(np.float32) for i in range(2))
    layer = hub.layer("2")
    hub.factorize("2", Factorized("2", "conv", sizes, tensors, layer.bias, (1, 0), layer.geometry))
    factorized = factorize_module(module, hub)
    assert not is_parametrized(factorized)
    assert is_parametrized(module)
    wanted = run(hub, x)
    np.testing.assert_allclose(factorized(x).detach().numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


def test_parametrized_layers_of_other_kinds() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 2, 2), dim=1),
        nn.Flatten(),
        parametrizations.orthogonal(nn.Linear(96, 20), "weight", "householder"),
    ).eval()
    hub = load(module, input_shape=(4, 2, 2))
    assert [layer.name for layer in hub.layers()] == ["0", "2"]
    x = torch.randn(3, 4, 2, 2)
    np.testing.assert_allclose(run(hub, x), module(x).detach().numpy(), atol=1e-5)


def test_a_copy_keeps_training_flags_and_trains() -> None:
    module = network("spectral_norm")
    copy = plain_copy(module)
    assert all(part.training for part in copy.modules())
    assert type(copy[2]) is nn.Conv2d
    copy(torch.randn(2, 8, 9, 9)).sum().backward()
    assert copy[2].weight.grad is not None
    # The original's class still has its property.
    assert module[2].weight.shape == (16, 16, 3, 3)


class _Noise(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.rand(())


class _Broken(nn.Module):
    worked = 0

    def forward(self, weight: Tensor) -> Tensor:
        # Registering evaluates it once.
        self.worked += 1
        if self.worked > 1:
            raise RuntimeError("no weight today")
        return weight


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (_Noise(), r"layer body\.conv: the parametrization _Noise of its weight gives another value each time"),
        (
            _Broken(),
            r"layer body\.conv: the parametrization _Broken of its weight cannot be removed \(no weight today\)",
        ),
    ],
)
def test_what_has_no_constant_value_is_refused_by_name(step: nn.Module, words: str) -> None:
    module = nn.Sequential()
    module.body = nn.Sequential()
    module.body.conv = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(module.body.conv, "weight", step, unsafe=True)
    with pytest.raises(UserError, match=words):
        load(module, input_shape=(3, 8, 8))
