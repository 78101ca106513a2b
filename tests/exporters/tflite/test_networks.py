"""Every bundled network in LiteRT against the torch module, with random weights and batch normalisation statistics."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from edgekron.algebra import FactorNetwork
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.read import Contents, read
from edgekron.graph import Factorized, Hub, load
from edgekron.models import catalog, mobilenet_v2
from edgekron.models.mobilenet_v2 import MobileNetV2
from edgekron.models.resnet import ResNet
from edgekron.models.resnet_cifar import CifarResNet
from edgekron.models.sixconv import SixConv
from edgekron.models.vgg import VGG16BN

#: A shallow network of every bundled family: how to build it, and its input [C, H, W], an odd size among them.
FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, int, int]]] = {
    "six convolutions": (SixConv, (3, 20, 23)),
    "cifar, option A": (partial(CifarResNet, 8, in_channels=1), (1, 28, 28)),
    "cifar, option A, odd": (partial(CifarResNet, 8), (3, 21, 22)),
    "cifar, option B": (partial(CifarResNet, 8, shortcut="B"), (3, 16, 16)),
    "basic, imagenet": (partial(ResNet, (1, 1, 1, 1)), (3, 65, 64)),
    "bottleneck": (partial(ResNet, (1, 1, 1, 1), bottleneck=True), (3, 64, 64)),
    "squeeze and excite": (partial(ResNet, (1, 1, 1, 1), squeeze_excite=True, stem="small"), (3, 16, 16)),
    "vgg": (VGG16BN, (3, 32, 32)),
}

#: Networks that flatten maps of several pixels: TFLite's order of them is another, so one transpose stays.
FLATTENED = ("convfc", "convfc-cifar")
#: Sizes below which the full networks do not make sense; smaller than in the papers.
SMALL_IMAGE = 64


def randomised(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The module in evaluation mode, with statistics of batch normalisation that do something."""
    torch.manual_seed(0)
    module = make().eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, 0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, 0.5, 1)
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    return module


def run(data: bytes, x: np.ndarray) -> tuple[np.ndarray, int]:
    """The output, and the number of parts handed to XNNPACK."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    delegates = [o for o in interpreter._get_ops_details() if o["op_name"] == "DELEGATE"]
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), len(delegates)


def check(module: torch.nn.Module, hub: Hub, batch: int, parts: int = 1) -> Contents:
    data = export_tflite(hub, batch=batch)
    contents = read(data)
    assert contents.problems() == []
    x = torch.randn(batch, *hub.input_shape)
    with torch.no_grad():
        expected = module(x).numpy()
    actual, delegates = run(data, x.permute(0, 2, 3, 1).contiguous().numpy())
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    # One part is the whole network: nothing falls back to slower kernels.
    assert delegates == parts
    return contents


def assert_plain(contents: Contents, transposes: int = 0) -> None:
    assert not {"RELU", "RELU6", "GATHER", "BATCH_MATMUL"} & set(contents.operators)
    assert contents.histogram.get("TRANSPOSE", 0) == transposes


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    make, shape = FAMILIES[name]
    module = randomised(make)
    assert_plain(check(module, load(module, input_shape=shape), batch=2, parts=3 if name.endswith("odd") else 1))


@pytest.mark.thorough
def test_inverted_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)))
    module = randomised(MobileNetV2)
    contents = check(module, load(module, input_shape=(3, 48, 49)), batch=1)
    assert_plain(contents)
    assert contents.histogram["DEPTHWISE_CONV_2D"] == 5


@pytest.mark.thorough
@pytest.mark.parametrize("name", catalog.NETWORKS)
def test_bundled_network(name: str) -> None:
    module = randomised(partial(catalog.build, name))
    channels, height, _ = catalog.NETWORKS[name].input_shape
    size = min(height, SMALL_IMAGE)
    contents = check(module, load(module, input_shape=(channels, size, size)), batch=1)
    assert_plain(contents, transposes=int(name in FLATTENED))


@pytest.fixture(scope="module")
def hub() -> Hub:
    """A residual network whose 3x3 layers are Kronecker products."""
    hub = load(randomised(partial(CifarResNet, 8, in_channels=1)), input_shape=(1, 28, 28))
    rng = np.random.default_rng(0)
    for layer in hub.layers():
        if layer.frozen_reason or layer.kernel is None or layer.kind != "conv" or layer.kernel.shape[1] < 16:
            continue
        f, c, h, w = layer.kernel.shape
        form = FactorNetwork(
            "r f1 c1, r f2 c2 h2 w2", {"r": 2, "f1": 4, "c1": 4, "f2": f // 4, "c2": c // 4, "h2": h, "w2": w}
        )
        tensors = tuple(
            (0.5 * rng.standard_normal(form.factor_shape(i)) / np.sqrt(np.prod(form.factor_shape(i)[2:]))).astype(
                np.float32
            )
            for i in range(2)
        )
        hub.factorize(layer.name, Factorized(layer.name, "conv", form, tensors, layer.bias, (1, 0), layer.geometry))
    return hub


def test_factorized_network(tflite_equals: Callable[..., Contents], hub: Hub) -> None:
    x = np.random.default_rng(1).standard_normal((1, 1, 28, 28)).astype(np.float32)
    data = export_tflite(hub)
    tflite_equals(hub.proto(), data, x, 1e-4)
    _, delegates = run(data, x.transpose(0, 2, 3, 1))
    assert delegates == 1
    assert len(data) < 0.85 * len(export_tflite(hub.dense()))


def test_same_bytes_twice_and_after_a_copy(hub: Hub) -> None:
    assert export_tflite(hub) == export_tflite(hub) == export_tflite(hub.copy())


def test_file_runs_where_edgekron_is_not_installed(tmp_path: Path, hub: Hub) -> None:
    path = tmp_path / "network.tflite"
    data = export_tflite(hub, path)
    assert path.read_bytes() == data
    x = np.random.default_rng(1).standard_normal((1, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    script = f"""
import sys
sys.modules["edgekron"] = sys.modules["torch"] = None
import numpy as np
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter({str(path)!r}).get_signature_runner("serving_default")
(name,) = runner.get_input_details()
(result,) = runner(**{{name: np.load({str(tmp_path / "x.npy")!r})}}).values()
np.save({str(tmp_path / "y.npy")!r}, result)
"""
    subprocess.run([sys.executable, "-I", "-c", script], check=True, capture_output=True, cwd=tmp_path)
    assert np.array_equal(np.load(tmp_path / "y.npy"), run(data, x)[0])
