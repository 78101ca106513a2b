"""What ``factorize_module`` hands out is the compressed network: norms that a file folded, trained dense layers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.verify import TorchVersion, open_version
from edgekron.graph import Hub, load
from edgekron.modules import GraphModule, factorize_module
from edgekron.modules.layers import FactorizedLayer
from tests.networks import onnx_output

SHAPE = (3, 8, 8)


class Network(nn.Module):
    """Convolutions with norms, one of them transposed, a norm that stands before a layer, and two dense ends."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 12, 2, 2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        )  # fmt: skip
        self.before, self.last = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.last(torch.relu(self.before(self.body(x)))))
        return self.head(self.norm(x.mean((2, 3))))


def network() -> nn.Module:
    torch.manual_seed(0)
    module = Network().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.weight, 1.0, 3.0)
            nn.init.normal_(part.bias)
    return module


def from_file(module: nn.Module, folder: Path) -> Hub:
    """The hub of the file that torch's exporter writes, with norms folded into layers before there is a hub."""
    logging.disable(logging.WARNING)
    try:
        axes = ({0: torch.export.Dim("n")},)
        file = torch.onnx.export(module, (torch.randn(2, *SHAPE),), dynamo=True, dynamic_shapes=axes, verbose=False)
        file.save(folder / "net.onnx")
    finally:
        logging.disable(logging.NOTSET)
    hub = load(folder / "net.onnx")
    assert not [key for key in hub.model.metadata_props if "folded" in key]
    return hub


def error(module: nn.Module, hub: Hub) -> float:
    x = np.random.default_rng(1).standard_normal((4, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        found, wanted = module.eval()(torch.from_numpy(x)).numpy(), onnx_output(hub, x)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def trained(hub: Hub, scale: float = 0.3) -> Hub:
    """The hub after a step of training in a random direction, of every weight that is trained."""
    module = GraphModule(hub)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            size = float(parameter.square().mean().sqrt()) or 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale * size)
    return module.to_hub()


SOURCES: dict[str, Callable[[nn.Module, Path], Hub]] = {
    "module": lambda module, folder: load(module, input_shape=SHAPE),
    "file": from_file,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("after", ["compressed", "trained"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("ratio", [None, 1.5, 3.0])
def test_a_factorized_module_is_the_compressed_network(
    source: str, after: str, ratio: float | None, tmp_path: Path
) -> None:
    module = network()
    dense = SOURCES[source](module, tmp_path)
    hub = dense if ratio is None else compress(dense, model="net", ratios={"macs": ratio}).hub
    if after == "trained":
        hub = trained(hub)
        assert error(module, hub) > 0.05
    before = copy.deepcopy(module.state_dict())
    small = factorize_module(module, hub)
    assert error(small, hub) < 2e-5
    layers = {name for name, part in small.named_modules() if isinstance(part, FactorizedLayer)}
    assert layers == {layer.name for layer in hub.layers() if layer.factorized is not None}
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore")
def test_dense_layers_that_were_not_trained_keep_their_norms(source: str, tmp_path: Path) -> None:
    module = network()
    small = factorize_module(module, SOURCES[source](module, tmp_path))
    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in small.state_dict().items())


def test_the_torch_version_of_a_trained_network_shows_what_its_hub_shows() -> None:
    module = network()
    hub = trained(compress(load(module, input_shape=SHAPE), model="net", ratios={"macs": 1.5}).hub)
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    shown, expected = TorchVersion(factorize_module(module, hub), hub).look(x), open_version(hub).look(x)
    layers = [layer.output for layer in hub.layers() if layer.output in shown and layer.output in expected]
    assert len(layers) >= 4
    for name in layers:
        np.testing.assert_allclose(shown[name], expected[name], rtol=1e-3, atol=1e-4)


def test_a_trained_value_that_has_no_name_in_the_module_is_not_lost_without_a_word() -> None:
    """Slopes have another shape and another name in the graph; the layer behind them is the first that differs."""
    module = network()
    module.body[8] = nn.PReLU(12)
    hub = load(module, input_shape=SHAPE)
    assert error(factorize_module(module, hub), hub) < 2e-5
    with pytest.raises(UserError, match=r"layer last is [\d.]+ % off for the same input"):
        factorize_module(module, trained(hub))


class Other(Network):
    """The same layers, used in another way."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.last(torch.relu(self.before(self.body(x * 2)))))
        return self.head(self.norm(x.mean((2, 3))))


class Scaled(Network):
    """Layers that give the same, and an output that does not."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Two(Network):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Narrow(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(-1, 3, 4, 4))


class Broken(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :2])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Other, r"layer body\.0 is [\d.]+ % off for the same input; compress this module"),
        (Scaled, r"output \S+ is 100 % off for the same input; compress this module"),
        (Two, "the module gives 2 outputs and the compressed network 1; compress this module"),
        (Narrow, "has shape .* in the module and .* in the compressed network"),
        (Broken, r"the module cannot run on an input \[2, 3, 8, 8\] .*expected input.*; compress this module"),
    ],
)
def test_a_module_that_is_another_network_is_refused(kind: type[Network], said: str) -> None:
    module = network()
    other = kind()
    other.load_state_dict(module.state_dict())
    hub = compress(load(module, input_shape=SHAPE), model="net", ratios={"macs": 1.5}).hub
    with pytest.raises(UserError, match=said):
        factorize_module(other, hub)


def test_a_module_keeps_its_type_its_mode_and_the_state_of_random_numbers() -> None:
    module = network()
    hub = compress(load(module, input_shape=SHAPE), model="net", ratios={"macs": 1.5}).hub
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    small = factorize_module(module.double().train(), hub)
    assert torch.equal(torch.rand(3), expected)
    assert small.training
    assert {value.dtype for value in small.state_dict().values() if value.is_floating_point()} == {torch.float64}
