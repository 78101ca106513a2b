"""Every family in both formats: the files of a small network equal its factorized graph, in its runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgekron.compression.compressor import apply_plan, compress
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub, load
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.runtimes.agent.backends import load as load_file
from edgekron.runtimes.agent.backends import run_nchw
from edgekron.structures import FAMILIES

SHAPE = (6, 14, 15)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 16, 3, stride=(1, 2), padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, (3, 5), padding=(2, 0), dilation=(2, 1), groups=2),
        nn.ReLU(),
        nn.Conv2d(24, 12, 1),
        nn.Conv2d(12, 12, 2, padding=(1, 0)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    ).eval()


@pytest.fixture(scope="module")
def hub() -> Hub:
    return load(network(), input_shape=SHAPE)


def middling(hub: Hub, method: str, forms: dict[str, tuple[str, ...]] | None = None) -> CompressionPlan:
    """A plan that has every layer in the last structure of ``method``, at half of its full ranks."""
    lines = {}
    for layer in hub.layers():
        found = list(FAMILIES[method].templates(layer.kernel_shape, layer.groups))
        if found:
            ranks = tuple(max(1, rank // 2) for rank in found[-1].max_ranks)
            lines[layer.name] = LayerPlan(method, str(found[-1]), ranks, forms=forms or {})
    return CompressionPlan("test", lines)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = load_file(path)
    try:
        (output,) = run_nchw(session, x)
    finally:
        session.close()
    return output


def onnx_output(proto: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    return output


@pytest.mark.parametrize("method", FAMILIES)
def test_files_equal_the_factorized_graph(hub: Hub, method: str, tmp_path: Path) -> None:
    made = apply_plan(hub, middling(hub, method)).hub
    assert sum(layer.factorized is not None for layer in made.layers()) >= 4
    x = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    wanted = onnx_output(made.proto().SerializeToString(), x)
    scale = np.abs(wanted).max()
    proto = export_onnx(made, tmp_path / "made.onnx")
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    assert np.abs(onnx_output(proto.SerializeToString(), x) - wanted).max() < 1e-5 * scale
    export_tflite(made, tmp_path / "made.tflite")
    for image, expected in zip(x, wanted, strict=True):
        assert np.abs(run(tmp_path / "made.tflite", image[None]) - expected).max() < 1e-5 * scale


@pytest.mark.parametrize("method", ["tt-matrix", "tr", "kronecker", "cp"])
def test_expanding_when_the_file_is_loaded(hub: Hub, method: str, tmp_path: Path) -> None:
    """The file has the factors and no kernel; TFLite refuses."""
    plan = middling(hub, method, {"onnx": ("expand",), "tflite": ("expand",)})
    made = apply_plan(hub, plan).hub
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    wanted = onnx_output(made.proto().SerializeToString(), x)
    proto = export_onnx(made)
    assert np.abs(onnx_output(proto.SerializeToString(), x) - wanted).max() < 1e-5 * np.abs(wanted).max()
    factorized = [layer.factorized for layer in made.layers() if layer.factorized is not None]
    assert sum(node.op_type == "Einsum" for node in proto.graph.node) == len(factorized)
    with pytest.raises(UserError, match=r"layer .*'expand' needs a runtime that computes constants"):
        export_tflite(made, tmp_path / "made.tflite")
    assert not (tmp_path / "made.tflite").exists()


def test_a_train_that_costs_more_than_the_dense_layer_is_expanded_and_says_so() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()
    hub = load(module, input_shape=(64, 8, 8))
    made = compress(hub, model="wide", ratios={"parameters": 2.0}, method="tt-matrix")
    lines = [line for line in made.plan.layers.values() if line.method == "tt-matrix"]
    assert lines
    assert any(
        "expanded when the file is loaded" in line.reason and line.forms["onnx"] == ("expand",) for line in lines
    )
    assert made.report.parameters.ratio >= 2.0
    stored = sum(np.prod(t.dims) for t in export_onnx(made.hub).graph.initializer if t.data_type == 1)
    assert stored < 0.55 * sum(p.numel() for p in module.parameters())
