"""Every bundled network, factorized: torch, ONNX Runtime and LiteRT give the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekron import models
from edgekron.compression.compressor import apply_plan
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import load
from edgekron.modules.factorize import factorize_module
from edgekron.planning.survey import make_plan
from edgekron.runtimes.agent.backends import load as open_file
from edgekron.runtimes.agent.backends import run_nchw

SMALL = ["sixconv", "resnet20", "resnet32", "resnet20-cifar", "sixconv-cifar", "mobilenetv2-cifar", "vgg16-bn-cifar"]
LARGE = [name for name in models.NETWORKS if name not in SMALL]


def network(name: str) -> torch.nn.Module:
    """The bundled network; where it is not trained, with batch statistics that keep its activations in range."""
    torch.manual_seed(0)
    module = models.load(name)
    if models.facts(name) is None:
        x = torch.randn(8, *models.NETWORKS[name].input_shape)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.normal_(layer.bias, 0.0, 0.1)
        with torch.no_grad():
            module.train()(x)
    return module.eval()


def check(name: str, folder: Path) -> None:
    module = network(name)
    hub = load(module, input_shape=models.NETWORKS[name].input_shape)
    plan = make_plan(hub, model=name, ratios={"macs": 1.5})
    compressed = apply_plan(hub, plan)
    assert any(line.method == "kronecker" for line in plan.layers.values())
    assert compressed.report.macs.ratio >= 1.5
    factorized = factorize_module(module, compressed.hub)
    export_onnx(compressed.hub, folder / "m.onnx")
    export_tflite(compressed.hub, folder / "m.tflite")
    sessions = [open_file(folder / f) for f in ("m.onnx", "m.tflite")]
    for batch in (1, 2, 3):
        x = np.random.default_rng(batch).standard_normal((batch, *models.NETWORKS[name].input_shape)).astype(np.float32)
        with torch.no_grad():
            wanted = factorized(torch.from_numpy(x)).numpy()
        for session in sessions:
            (got,) = run_nchw(session, x)
            assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.thorough
@pytest.mark.parametrize("name", SMALL)
def test_files_equal_the_factorized_torch_model(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("name", LARGE)
def test_files_of_large_networks_equal_the_factorized_torch_model(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)
