"""Versions that are compared: with and without their inner values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify.compare import cases, compare, open_version
from edgekron.graph import load


@pytest.mark.parametrize("kind", ["hub", "onnx", "tflite"])
def test_outputs_are_the_same_without_inner_values(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    hub = load(module.eval(), input_shape=(3, 8, 8))
    path = tmp_path / f"network.{kind}"
    if kind != "hub":
        {"onnx": export_onnx, "tflite": export_tflite}[kind](hub, path)
    source = hub if kind == "hub" else path
    whole, outputs = open_version(source), open_version(source, inner=False)
    assert whole.inner
    assert not outputs.inner
    for _, x in cases((3, 8, 8), None):
        assert set(outputs.run(x)) == set(outputs.outputs)
    ends, layers = compare(whole, outputs, cases((3, 8, 8), None), {})
    assert max(end.relative for end in ends) == 0.0
    assert {row.name for row in layers} <= set(outputs.outputs)
    assert len(ends) == 6
