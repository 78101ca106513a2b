"""Files of opset 7 to 10: every node computes in the hub what ONNX Runtime computes of the file as it is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from edgekron.errors import UserError
from edgekron.graph import load

from .single import expect_same, proto, random

if TYPE_CHECKING:
    from pathlib import Path

NORM = {name: np.abs(random(4, seed=i)) + np.float32(0.1) for i, name in enumerate("gbmv")}
make = helper.make_node


def one(operator: str, *inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [make(operator, ["x", *inputs], ["y"], **attributes)]


#: Nodes, constants and opsets; the shape of x is [n, 4, 7, 9].
TABLE: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], range]] = {
    "norm": (one("BatchNormalization", *"gbmv", epsilon=0.01), NORM, range(7, 11)),
    "norm of a convolution": (
        [make("Conv", ["x", "w"], ["t"]), make("BatchNormalization", ["t", *"gbmv"], ["y"])],
        NORM | {"w": random(4, 4, 3, 3)},
        range(7, 11),
    ),
    "dropout": (one("Dropout", ratio=0.3), {}, range(7, 11)),
    "pad": (one("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], value=1.5), {}, range(7, 11)),
    "pad by mirrors": (one("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect"), {}, range(7, 11)),
    "pad by edges": (one("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="edge"), {}, range(7, 11)),
    "crop": (one("Pad", pads=[0, 0, -1, -2, 0, 0, 1, 1]), {}, range(7, 11)),
    "clip": (one("Clip", min=0.0, max=0.5), {}, range(7, 11)),
    "clip from below": (one("Clip", min=-0.2), {}, range(7, 11)),
    "softmax over all": (one("Softmax"), {}, range(7, 11)),
    "softmax over some": (one("Softmax", axis=2), {}, range(7, 11)),
    "softmax over the last": (one("Softmax", axis=3), {}, range(7, 11)),
    "log of softmax": (one("LogSoftmax", axis=1), {}, range(7, 11)),
    "hardmax over all": (one("Hardmax"), {}, range(7, 13)),
    "hardmax over the last": (one("Hardmax", axis=3), {}, range(7, 13)),
    "slice": (one("Slice", axes=[1, 3], starts=[1, -4], ends=[3, 99]), {}, range(7, 10)),
    "slice by inputs": (
        one("Slice", "s", "e", "a", "t"),
        {"s": np.array([0, 8]), "e": np.array([7, -100]), "a": np.array([2, 3]), "t": np.array([2, -2])},
        range(10, 11),
    ),
    "largest": ([make("TopK", ["x"], ["y", "i"], axis=3, k=3)], {}, range(7, 10)),
    "largest by an input": ([make("TopK", ["x", "k"], ["y", "i"], axis=3)], {"k": np.array([3])}, range(10, 11)),
    "pool": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}, range(7, 11)),
    "mean": (one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}, range(7, 11)),
    "split": (
        [make("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]), make("Concat", ["b", "a"], ["y"], axis=1)],
        {},
        range(7, 11),
    ),
    "squeeze": (
        [make("Unsqueeze", ["x"], ["u"], axes=[2, 3]), make("Squeeze", ["u"], ["y"], axes=[2, 3])],
        {},
        range(7, 11),
    ),
    "sum": (one("ReduceSum", axes=[2, 3], keepdims=0), {}, range(7, 11)),
    "rows": (
        [make("Flatten", ["x"], ["f"]), make("Gemm", ["f", "w", "c"], ["y"], transB=1)],
        {"w": random(5, 252), "c": random(5)},
        range(7, 11),
    ),
    "transposed": (
        one("ConvTranspose", "w", strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1]),
        {"w": random(4, 3, 3, 3)},
        range(7, 11),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_node_keeps_its_meaning(tmp_path: Path, name: str) -> None:
    nodes, constants, opsets = TABLE[name]
    for opset in opsets:
        expect_same(tmp_path / "o.onnx", proto(nodes, constants, opset=opset, ir_version=4))


LARGER = [(1.0, 1.0, 2.0, 2.0), (1.0, 1.0, 3.0, 1.0), (1.0, 1.0, 1.5, 2.5), (1.0, 1.0, 2.3, 1.7)]
SMALLER = [(1.0, 1.0, 0.5, 0.5), (1.0, 1.0, 0.4, 0.7), (1.0, 1.0, 0.99, 1.0)]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [*LARGER, *SMALLER], ids=str)
def test_sizes_of_images_change_as_before(tmp_path: Path, mode: str, scales: tuple[float, ...]) -> None:
    """A softmax behind the node needs the shape of its result, and is given the result by a name within the graph."""
    given = {"s": np.array(scales, np.float32)}
    if scales in LARGER:
        old = proto(one("Upsample", mode=mode, scales=scales), {}, opset=8, ir_version=4)
        expect_same(tmp_path / "o.onnx", old)
        expect_same(tmp_path / "o.onnx", proto(one("Upsample", "s", mode=mode), given, opset=9, ir_version=4))
    computed = [
        make("Constant", [], ["h"], value=numpy_helper.from_array(given["s"] / np.float32(2))),
        make("Constant", [], ["t"], value=numpy_helper.from_array(np.float32(2))),
        make("Mul", ["h", "t"], ["s"]),
        *one("Resize", "s", mode=mode),
    ]
    expect_same(tmp_path / "o.onnx", proto(one("Resize", "s", mode=mode), given, opset=10, ir_version=4))
    expect_same(tmp_path / "o.onnx", proto(computed, {}, opset=10, ir_version=4))
    node, opset = ("Upsample", 9) if scales in LARGER else ("Resize", 10)
    nodes = [make(node, ["x", "s"], ["u"], mode=mode), make("Softmax", ["u"], ["y"], axis=1)]
    expect_same(tmp_path / "o.onnx", proto(nodes, given, opset=opset, ir_version=4))


def test_what_has_no_newer_spelling_is_refused_by_node(tmp_path: Path) -> None:
    node = [make("Resize", ["x", "s"], ["y"], mode="nearest", name="both ways")]
    model = proto(node, {"s": np.array([1, 1, 2, 0.6], np.float32)}, opset=10, ir_version=4)
    onnx.save(model, tmp_path / "r.onnx")
    with pytest.raises(
        UserError, match=r"r\.onnx: node both ways is Resize, whose scales .* cannot be written in opset"
    ):
        load(tmp_path / "r.onnx")
    model.opset_import[0].version = 6
    onnx.save(model, tmp_path / "six.onnx")
    with pytest.raises(UserError, match=r"six\.onnx"):
        load(tmp_path / "six.onnx")


class Net(nn.Module):
    """What people had exported: a stem with a normalisation, resizing both by a factor and to a size, and padding."""

    def __init__(self, factors: tuple[float, float] | None) -> None:
        super().__init__()
        self.factors = factors
        self.stem = nn.Sequential(
            nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.deep = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        z = nn.functional.interpolate(self.deep(nn.functional.max_pool2d(y, 2)), scale_factor=1.5, mode="nearest")
        size = None if self.factors else (8, 8)
        z = nn.functional.interpolate(z, size=size, scale_factor=self.factors, mode="nearest")
        y = torch.cat([y, z], 1)[:, 4:12]
        return self.head(nn.functional.dropout(y.mean((2, 3)), training=self.training)).softmax(1)


@pytest.mark.parametrize("opset", [9, 10, 11])
def test_networks_of_the_older_exporter(tmp_path: Path, opset: int) -> None:
    torch.manual_seed(0)
    # Resizing to a size of an image with an open batch is what this version of the exporter fails at in old opsets.
    net, path = Net(None if opset > 10 else (1.34, 1.34)).eval(), tmp_path / "net.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, 3, 16, 16),), str(path), opset_version=opset, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, dynamo=False,
        )  # fmt: skip
    hub = expect_same(path, onnx.load(path))
    assert [layer.frozen_reason for layer in hub.layers()] == [None] * 3
    assert all(layer.macs_known for layer in hub.layers())
    assert {node.op_type for node in hub.model.graph}.isdisjoint({"BatchNormalization", "ConstantOfShape", "Dropout"})
