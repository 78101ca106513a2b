"""Layers of very small and very large values are fitted as those of ordinary ones, and ordinary ones as ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.compression.compressor import Compression, compress
from edgekron.fitting.units import unit_for
from edgekron.graph import Hub, load
from tests import networks

IMAGES = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)


def network(scale: float) -> Hub:
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
    return load(net.eval(), input_shape=(3, 6, 6))


def result(scale: float, *, data: bool, method: str = "low-rank") -> Compression:
    images = [np.random.default_rng(0).standard_normal((12, 3, 6, 6)).astype(np.float32)] if data else []
    return compress(network(scale), model="n", ratios={"macs": 2.0}, data=images, method=method)


def errors(found: Compression) -> dict[str, float]:
    return {name: row.error for name, row in found.report.layers.items() if row.error is not None}


def distance(found: Compression, dense: np.ndarray, scale: float) -> float:
    """How far the outputs are from those of the dense network, both as if the scale were one."""
    outputs = networks.onnx_output(found.hub, IMAGES).astype(np.float64) / scale
    return float(np.linalg.norm(outputs - dense) / np.linalg.norm(dense))


@pytest.mark.parametrize("method", ["low-rank", "kronecker", "tucker"])
def test_kernels_of_any_size_are_decomposed_alike(method: str) -> None:
    ordinary = result(1.0, data=False, method=method)
    dense = networks.onnx_output(network(1.0), IMAGES)
    assert min(errors(ordinary).values()) > 0.01
    for power in (-83, 60):
        other = result(2.0**power, data=False, method=method)
        assert errors(other) == pytest.approx(errors(ordinary), rel=1e-4)
        assert distance(other, dense, 2.0**power) == pytest.approx(distance(ordinary, dense, 1.0), rel=1e-3)


@pytest.mark.parametrize("power", [-83, 60])
def test_values_of_any_size_are_fitted_alike(power: int) -> None:
    """L-BFGS stops by absolute tolerances, so the fits are not the same to the last digit: no worse, and not of no
    error.
    """
    ordinary, other = result(1.0, data=True), result(2.0**power, data=True)
    dense = networks.onnx_output(network(1.0), IMAGES)
    assert errors(other).keys() == errors(ordinary).keys()
    assert all(0.5 * error < errors(other)[name] < 1.05 * error for name, error in errors(ordinary).items())
    assert distance(other, dense, 2.0**power) < 1.05 * distance(ordinary, dense, 1.0)


def test_values_of_an_ordinary_size_have_no_unit() -> None:
    for size in (0.0, 1e-9, 1e-3, 1.0, 1e4, 1e9, float("nan"), float("inf")):
        assert unit_for(size**2) == 1.0
    for size in (1e-25, 1e-10, 1e10, 1e25):
        unit = unit_for(size**2)
        assert 0.5 < unit * size < 2.0
        assert np.log2(unit).is_integer()
