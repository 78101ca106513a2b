"""Adaptive average pooling, from torch to ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgekron.graph import load


@pytest.mark.parametrize(
    ("size", "output", "operator"),
    [
        ((8, 8), (1, 1), None),
        ((8, 9), (2, 3), "AveragePool"),
        ((8, 8), (None, 4), "AveragePool"),
        ((8, 9), (3, 6), "MatMul"),
        ((5, 7), (3, 7), "MatMul"),
        ((2, 3), (6, 7), "MatMul"),
        ((2, 2), (6, 6), "MatMul"),
    ],
)
def test_adaptive_average_pooling(size: tuple[int, int], output: tuple[int | None, int], operator: str | None) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(output)).eval()
    hub = load(module, input_shape=(3, *size))
    operators = {node.op_type for node in hub.model.graph}
    assert operator is None or operator in operators
    assert len(hub.layers()) == 1
    session = ort.InferenceSession(hub.proto().SerializeToString())
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {hub.input_name: x})[0], expected, atol=1e-6)
