"""Passes that rewrite shapes, each against ONNX Runtime on the graph before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.graph import load
from edgekron.graph.passes import drop_expand, infer_shapes, pixels_from_pools, space_to_depth, volumes_as_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def model_of(nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], **constants: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rewritten(proto: onnx.ModelProto, rewrite: Callable[[ir.Model], None], x: np.ndarray) -> list[str]:
    """The operators after a pass, which must give what the model gave before."""
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model)
    rewrite(model)
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after)
    expected, actual = (
        ort.InferenceSession(p.SerializeToString()).run(None, {p.graph.input[0].name: x})[0] for p in (proto, after)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    return [node.op_type for node in model.graph]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("operator", ["Add", "Mul", "Sub", "Div", "Max"])
def test_an_expand_that_broadcasting_does_is_dropped(operator: str) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["g"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Expand", ["g", "s"], ["e"]),
        helper.make_node(operator, ["e", "x"], ["y"]),
    ]
    proto = model_of(nodes, ["N", 3, 4, 5])
    assert "Expand" not in rewritten(proto, drop_expand, noise(2, 3, 4, 5))


def test_both_expands_of_an_outer_product_are_dropped() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "rows"], ["a"]),
        helper.make_node("ReduceMean", ["x", "columns"], ["b"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Expand", ["a", "s"], ["c"]),
        helper.make_node("Expand", ["b", "s"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["y"]),
    ]
    proto = model_of(nodes, ["N", 3, 4, 5], rows=np.array([2]), columns=np.array([3]))
    assert "Expand" not in rewritten(proto, drop_expand, noise(2, 3, 4, 5))


@pytest.mark.parametrize("other", [(1, 3, 1, 1), (1,)])
def test_an_expand_that_gives_the_size_is_kept(other: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Expand", ["x", "s"], ["e"]), helper.make_node("Add", ["e", "w"], ["y"])]
    proto = model_of(nodes, [2, 3, 1, 5], s=np.array([2, 3, 4, 5]), w=noise(*other))
    assert "Expand" in rewritten(proto, drop_expand, noise(2, 3, 1, 5))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("window", "strides", "pads", "expected"),
    [
        ((3, 1, 1), (1, 1, 1), (1, 0, 0, 1, 0, 0), (3, 1)),
        ((4, 1, 1), (2, 1, 1), (0, 0, 0, 2, 0, 0), (4, 1)),
        ((1, 1, 3), (1, 1, 2), (0, 0, 1, 0, 0, 0), (1, 3)),
        ((1, 1, 1), (1, 1, 1), (0,) * 6, (1, 1)),
        ((1, 3, 1), (1, 1, 1), (0,) * 6, None),
        ((3, 1, 1), (1, 2, 1), (0,) * 6, None),
        ((3, 1, 1), (1, 1, 1), (0, 1, 0, 0, 0, 0), None),
    ],
)
def test_volume_convolutions(
    window: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    expected: tuple[int, int] | None,
    groups: int,
) -> None:
    attributes = {"strides": strides, "pads": pads, "group": groups, "dilations": (1, 1, 1)}
    weight, bias = noise(6, 4 // groups, *window), noise(6)
    node = helper.make_node("Conv", ["x", "layer.weight", "b"], ["y"], **attributes)
    proto = model_of([node], ["N", 4, 6, 5, 7], **{"layer.weight": weight, "b": bias})
    operators = rewritten(proto, volumes_as_images, noise(2, 4, 6, 5, 7))
    assert operators == (["Conv"] if expected is None else ["Reshape", "Conv", "Reshape"])


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("included", [0, 1])
def test_volume_pools(operator: str, included: int) -> None:
    options = {"count_include_pad": included} if operator == "AveragePool" else {}
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=(5, 1, 1), pads=(2, 0, 0, 2, 0, 0), **options)
    operators = rewritten(model_of([node], ["N", 1, 8, 5, 7]), volumes_as_images, noise(2, 1, 8, 5, 7))
    assert operators == ["Reshape", operator, "Reshape"]


class _Responses(nn.Module):
    """Two local response normalisations: reshapes behind reshapes, each to a shape computed from the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(5, k=2.0), nn.MaxPool2d(2), nn.LocalResponseNorm(3), nn.Flatten()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_reshapes_behind_reshapes_lose_their_computed_shapes() -> None:
    module = _Responses().eval()
    hub = load(module, input_shape=(3, 12, 11))
    operators = {node.op_type for node in hub.model.graph}
    assert not operators & {"Shape", "Gather", "Concat"}
    proto = hub.proto()
    for batch in (1, 3):
        x = noise(batch, 3, 12, 11)
        (actual,) = ort.InferenceSession(proto.SerializeToString()).run(None, {hub.input_name: x})
        with torch.no_grad():
            np.testing.assert_allclose(actual, module(torch.from_numpy(x)).numpy(), atol=1e-5)


@pytest.mark.parametrize("order", [(0, 3, 5, 1, 2, 4), (0, 1, 3, 5, 2, 4)])
@pytest.mark.parametrize(("block", "size"), [(2, (4, 6)), (4, (8, 4)), (3, (6, 3))])
def test_blocks_of_pixels(order: tuple[int, ...], block: int, size: tuple[int, int]) -> None:
    h, w = size[0] // block, size[1] // block
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=order),
        helper.make_node("Reshape", ["b", "joined"], ["y"]),
    ]
    proto = model_of(
        nodes,
        ["N", 3, *size],
        split=np.array([0, 3, h, block, w, block]),
        joined=np.array([0, 3 * block**2, h, w]),
    )
    operators = rewritten(proto, space_to_depth, noise(2, 3, *size))
    assert "SpaceToDepth" in operators


@pytest.mark.parametrize("split", [(0, 3, 2, 4, 2, 4), (0, 3, 4, 2, 4, 2)])
def test_other_transposes_of_six_axes_stay(split: tuple[int, ...]) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=(0, 5, 3, 1, 2, 4)),
        helper.make_node("Reshape", ["b", "joined"], ["y"]),
    ]
    proto = model_of(nodes, ["N", 3, 8, 8], split=np.array(split), joined=np.array([0, -1, split[2], split[4]]))
    assert rewritten(proto, space_to_depth, noise(2, 3, 8, 8)).count("Transpose") == 1


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("ceil", [0, 1])
def test_pools_of_one_pixel(operator: str, strides: tuple[int, int], ceil: int) -> None:
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=(1, 1), strides=strides, ceil_mode=ceil)
    assert rewritten(model_of([node], ["N", 3, 7, 8]), pixels_from_pools, noise(2, 3, 7, 8)) == ["Slice"]


def test_a_crop_before_a_pool_of_one_pixel_runs() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ZeroPad2d((1, -1, 1, -1)), nn.AvgPool2d(1, 2), nn.ReLU()).eval()
    hub = load(module, input_shape=(3, 10, 10))
    x = noise(2, 3, 10, 10)
    (actual,) = ort.InferenceSession(hub.proto().SerializeToString()).run(None, {hub.input_name: x})
    with torch.no_grad():
        np.testing.assert_allclose(actual, module(torch.from_numpy(x)).numpy(), atol=1e-5)
