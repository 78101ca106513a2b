"""Every kind of layer, factorized: torch module, hub, ONNX and TFLite give what the original module gives.

Each original layer gets the kernel that its factors make, so that nothing but the way it is computed changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekron.algebra import FactorNetwork
from edgekron.compression.compressor import apply_plan, compress
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify import open_version
from edgekron.graph import Factorized, Hub, load
from edgekron.graph.nodes import adjoint_kernel
from edgekron.modules.factorize import factorize_module

Layers = dict[str, Callable[[], nn.Module]]

IMAGES: Layers = {
    "plain": lambda: nn.Conv2d(8, 12, 3, padding=1),
    "no_bias": lambda: nn.Conv2d(8, 12, 3, padding=1, bias=False),
    "groups": lambda: nn.Conv2d(8, 12, 3, padding=1, groups=2),
    "pointwise": lambda: nn.Conv2d(8, 12, 1),
    "pointwise_stride": lambda: nn.Conv2d(8, 12, 1, stride=(1, 2), bias=False),
    "five": lambda: nn.Conv2d(8, 12, 5, stride=(2, 1), padding=2),
    "seven": lambda: nn.Conv2d(8, 12, 7, stride=2, padding=3, groups=4),
    "even": lambda: nn.Conv2d(8, 12, (2, 4), padding=1),
    "asymmetric": lambda: nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    "same": lambda: nn.Conv2d(8, 12, 4, padding="same", dilation=(1, 2)),
    "reflect": lambda: nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"),
    "up_two": lambda: nn.ConvTranspose2d(8, 12, 2, 2),
    "up_three": lambda: nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1),
    "up_four": lambda: nn.ConvTranspose2d(8, 12, 4, 2, 1, bias=False),
    "up_groups": lambda: nn.ConvTranspose2d(8, 12, 3, (3, 2), groups=2, output_padding=(2, 0)),
    "up_asymmetric": lambda: nn.ConvTranspose2d(8, 12, (3, 4), (1, 2), (1, 0), dilation=(2, 1)),
    "up_pointwise": lambda: nn.ConvTranspose2d(8, 12, 1, 2),
    "up_stride_one": lambda: nn.ConvTranspose2d(8, 12, 3, padding=1),
}
ROWS: Layers = {
    "plain": lambda: nn.Conv1d(8, 12, 3, padding=1),
    "no_bias": lambda: nn.Conv1d(8, 12, 5, padding=2, bias=False),
    "groups": lambda: nn.Conv1d(8, 12, 3, groups=2),
    "pointwise": lambda: nn.Conv1d(8, 12, 1),
    "stride": lambda: nn.Conv1d(8, 12, 4, stride=3, padding=1, dilation=2),
    "same": lambda: nn.Conv1d(8, 12, 4, padding="same"),
    "reflect": lambda: nn.Conv1d(8, 12, 3, padding=2, padding_mode="reflect"),
    "up": lambda: nn.ConvTranspose1d(8, 12, 4, 2, 1),
    "up_groups": lambda: nn.ConvTranspose1d(8, 12, 3, 2, 1, output_padding=1, groups=2, bias=False),
}
#: Paddings that TFLite has no operator for: slices put together.
WRAPPED: Layers = {
    "replicate": lambda: nn.Conv2d(8, 12, 3, padding=1, padding_mode="replicate"),
    "circular": lambda: nn.Conv2d(8, 12, 3, padding=(2, 1), padding_mode="circular"),
}


class Bank(nn.Module):
    """Several layers with the same input and an output each."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: make() for name, make in layers.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers.values())


def factors_of(layer: nn.Module) -> tuple[FactorNetwork, tuple[np.ndarray, ...]]:
    """Two random terms A (x) B for a layer, B with the window; the layer's weight becomes what they make."""
    g = layer.groups
    window = (1,) * (2 - len(layer.kernel_size)) + tuple(layer.kernel_size)
    sizes = {"g": g, "r": 2, "f1": layer.out_channels // g // 3, "c1": 2, "f2": 3, "c2": layer.in_channels // g // 2}
    network = FactorNetwork("g r f1 c1, g r f2 c2 h w", sizes | dict(zip("hw", window, strict=True)))
    random = np.random.default_rng(0)
    tensors = tuple(random.standard_normal(network.factor_shape(i)).astype(np.float32) for i in (0, 1))
    kernel = network.expand(tensors)
    weight = adjoint_kernel(kernel, g) if "Transpose" in type(layer).__name__ else kernel
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)).reshape(layer.weight.shape))
    return network, tensors


def factorized_bank(layers: Layers, shape: tuple[int, ...]) -> tuple[Bank, Hub]:
    torch.manual_seed(0)
    bank = Bank(layers).eval()
    factors = {f"layers.{name}": factors_of(layer) for name, layer in bank.layers.items()}
    hub = load(bank, input_shape=shape)
    assert {layer.name: layer.frozen_reason for layer in hub.layers()} == dict.fromkeys(factors)
    for name, (network, tensors) in factors.items():
        layer = hub.layer(name)
        order = network.best_order(layer.input_size, layer.geometry)
        hub.factorize(name, Factorized(name, "conv", network, tensors, layer.bias, order, layer.geometry))
        assert hub.layer(name).dense_macs == layer.dense_macs
        assert hub.layer(name).dense_parameters == layer.dense_parameters
    return bank, hub


def expect(names: Layers, wanted: tuple[Tensor, ...], got: list[np.ndarray]) -> None:
    for name, reference, value in zip(names, wanted, got, strict=True):
        assert value.shape == tuple(reference.shape), name
        error = np.abs(value - reference.numpy()).max() / reference.abs().max().item()
        assert error < 1e-5, f"{name}: {error}"


def outputs(source: Hub | Path, x: Tensor) -> list[np.ndarray]:
    version = open_version(source)
    values = version.run(x.numpy())
    return [values[name] for name in version.outputs]


# torch remarks that an even window with padding "same" makes it copy the input.
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("layers", "shape"), [(IMAGES, (8, 11, 10)), (ROWS, (8, 21)), (WRAPPED, (8, 11, 10))], ids=["2-D", "1-D", "wrapped"]
)
def test_all_versions_of_every_layer_are_equal(layers: Layers, shape: tuple[int, ...], tmp_path: Path) -> None:
    bank, hub = factorized_bank(layers, shape)
    x = torch.randn(3, *shape)
    with torch.no_grad():
        wanted = bank(x)
        module = factorize_module(bank, hub)
        expect(layers, wanted, [y.numpy() for y in module(x)])
    assert all(type(layer).__name__.startswith("Factorized") for layer in module.layers.values())
    expect(layers, wanted, outputs(hub, x))
    dense = hub.dense()
    dense.save(tmp_path / "dense.onnx")
    expect(layers, wanted, outputs(tmp_path / "dense.onnx", x))
    export_onnx(hub, tmp_path / "net.onnx")
    expect(layers, wanted, outputs(tmp_path / "net.onnx", x))
    for version in (hub, dense):
        export_tflite(version, tmp_path / "net.tflite", force=True)
        values = open_version(tmp_path / "net.tflite").run(x.numpy())
        expect(layers, wanted, [values[name] for name in hub.output_names])


class Twice(nn.Module):
    """Layers that are used twice, the second with a normalisation of its own behind each use."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.line, self.up = nn.Conv1d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.a(x).relu())
        x = self.second(self.b(self.first(self.b(x)).relu()))
        x = self.up(self.up(x))
        y = self.line(self.line(x.flatten(2)).relu())
        return self.last(y.unflatten(2, (6, 5)))


def test_layers_used_twice_stay_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Twice().eval()
    for norm in (module.first, module.second):
        nn.init.uniform_(norm.running_var, 0.5, 2)
    hub = load(module, input_shape=(8, 6, 5))
    reasons = {layer.name: layer.frozen_reason or "" for layer in hub.layers()}
    assert list(reasons) == ["a", "a_2", "b", "b_2", "up", "up_2", "line", "line_2", "last"]
    assert reasons.pop("last") == ""
    for name, reason in reasons.items():
        other = name.removesuffix("_2") if name.endswith("_2") else f"{name}_2"
        assert reason == f"shares its weights with {other}"
    result = compress(hub, model="twice", ratios={"parameters": 1.05})
    assert result.report.layers["last"].method == "kronecker"
    x = torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        expect({"dense": nn.Identity}, (module(x),), outputs(hub, x))
        wanted = (factorize_module(module, result.hub)(x),)
    export_onnx(result.hub, tmp_path / "net.onnx")
    export_tflite(result.hub, tmp_path / "net.tflite")
    for version in (result.hub, tmp_path / "net.onnx", tmp_path / "net.tflite"):
        expect({"y": nn.Identity}, wanted, outputs(version, x))


DEPTHWISE: Layers = {
    "image": lambda: nn.Conv2d(8, 16, 3, padding=1, groups=8),
    "up": lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
    "row": lambda: nn.Conv1d(8, 8, 5, groups=8),
}


@pytest.mark.parametrize("kind", DEPTHWISE)
def test_depthwise_layers_are_kept_with_the_reason(kind: str) -> None:
    torch.manual_seed(0)
    bank = Bank({kind: DEPTHWISE[kind]}).eval()
    shape = (8, 9) if kind == "row" else (8, 5, 6)
    hub = load(bank, input_shape=shape)
    assert str(hub.layer(f"layers.{kind}").frozen_reason).startswith("is depthwise")
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expect({kind: DEPTHWISE[kind]}, bank(x), outputs(hub, x))


def test_transposed_convolutions_that_are_no_spread_ones_say_why() -> None:
    bank = Bank(
        {
            "cut": lambda: nn.ConvTranspose2d(8, 4, 2, 3, 2),
            "extended": lambda: nn.ConvTranspose2d(8, 4, 3, 1, 1, output_padding=1, dilation=2),
        }
    ).eval()
    cut, extended = load(bank, input_shape=(8, 5, 6)).layers()
    assert cut.frozen_reason == "crops more than its window reaches"
    assert extended.frozen_reason == "pads its output by a whole stride or more"


def test_calibrated_fit_of_a_transposed_convolution_is_one_of_its_outputs() -> None:
    """Channels that never carry anything cost a fit to the data nothing."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(16, 24, 4, 2, 1, groups=2), nn.ReLU()).eval()
    hub = load(module, input_shape=(16, 6, 7))
    images = np.random.default_rng(0).standard_normal((32, 16, 6, 7)).astype(np.float32)
    images[:, [1, 2, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15]] = 0
    plan = compress(hub, model="up", ratios={"macs": 1.7}).plan
    errors = [apply_plan(hub, plan, data=data).report.layers["0"].error for data in ([], [images])]
    assert errors[1] < 0.2 * errors[0]
