"""Layers of very small and very large values are fitted as those of ordinary ones, and ordinary ones as ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.compression.compressor import Compression, compress
from edgekron.fitting.units import unit_for
from edgekron.graph import load
from tests import networks


def result(scale: float, *, data: bool, method: str = "low-rank") -> Compression:
    """A network whose middle layer, and so all that follows, is ``scale`` times as large."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.Flatten(), nn.Linear(24 * 36, 4),
    )  # fmt: skip
    with torch.no_grad():
        net[2].weight *= scale
        for part in (net[2], net[4], net[6]):
            part.bias *= scale
    images = [np.random.default_rng(0).standard_normal((12, 3, 6, 6)).astype(np.float32)] if data else []
    return compress(
        load(net.eval(), input_shape=(3, 6, 6)), model="n", ratios={"macs": 2.0}, data=images, method=method
    )


def errors(found: Compression) -> dict[str, float]:
    return {name: row.error for name, row in found.report.layers.items() if row.error is not None}


@pytest.mark.parametrize("method", ["low-rank", "kronecker", "tucker"])
@pytest.mark.parametrize("data", [False, True])
def test_small_and_large_layers_are_compressed_alike(method: str, data: bool) -> None:
    ordinary = result(1.0, data=data, method=method)
    x = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)
    expected = networks.onnx_output(ordinary.hub, x)
    assert min(errors(ordinary).values()) > 0.01
    for power in (-83, -60, 60):
        other = result(2.0**power, data=data, method=method)
        assert errors(other) == pytest.approx(errors(ordinary), rel=0.02)
        found = networks.onnx_output(other.hub, x).astype(np.float64) * 2.0**-power
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_values_of_an_ordinary_size_have_no_unit() -> None:
    for size in (0.0, 1e-9, 1e-3, 1.0, 1e4, 1e9, float("nan"), float("inf")):
        assert unit_for(size**2) == 1.0
    for size in (1e-25, 1e-10, 1e10, 1e25):
        unit = unit_for(size**2)
        assert 0.5 < unit * size < 2.0
        assert np.log2(unit).is_integer()
