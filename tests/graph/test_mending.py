"""Files that ONNX Runtime runs and the ONNX checker refuses are read as they are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.errors import UserError
from edgekron.graph import load
from edgekron.graph.mending import mend

from .single import expect_same, images, outputs, proto, random

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = {"a": random(4, 4, 3, 3), "b": random(6, 4, 3, 3)}
CHAIN = [
    helper.make_node("Conv", ["x", "a"], ["c"], pads=[1] * 4),
    helper.make_node("Relu", ["c"], ["d"]),
    helper.make_node("Conv", ["d", "b"], ["y"], pads=[1] * 4),
]


def test_nodes_out_of_order(tmp_path: Path) -> None:
    hub = expect_same(tmp_path / "u.onnx", proto(CHAIN[::-1], WEIGHTS))
    assert [layer.name for layer in hub.layers()] == ["c", "y"]


def test_nodes_out_of_order_beside_weights_in_another_file(tmp_path: Path) -> None:
    model, path = proto(CHAIN[::-1], WEIGHTS), tmp_path / "u.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    x = images((4, 7, 9))
    np.testing.assert_allclose(outputs(load(path).proto(), x), outputs(path, x), atol=1e-5)


def test_nodes_out_of_order_in_a_branch(tmp_path: Path) -> None:
    """The branch reads a value from around it, which is made behind the node too."""
    then = helper.make_graph(
        [helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Neg", ["s"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["e"])],
        "else", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["q"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Greater", ["m", "zero"], ["q"]),
        helper.make_node("ReduceMax", ["c"], ["m"], keepdims=0),
        CHAIN[0],
    ]
    model, x = proto(nodes, WEIGHTS | {"zero": np.float32(0)}), images((4, 7, 9))
    expected = outputs(model, x)
    # ONNX Runtime sorts the nodes of the main graph alone.
    inner = model.graph.node[0].attribute[0].g.node
    turned = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(inner)]
    del inner[:]
    inner.extend(turned)
    onnx.save(model, tmp_path / "b.onnx")
    np.testing.assert_allclose(outputs(load(tmp_path / "b.onnx").proto(), x), expected, atol=1e-5)


def test_order_is_kept_where_it_is_one() -> None:
    model = proto(CHAIN, WEIGHTS)
    before = model.SerializeToString()
    assert not mend(model)
    assert model.SerializeToString() == before


def test_a_circle_is_refused(tmp_path: Path) -> None:
    model = proto(CHAIN, WEIGHTS)
    model.graph.node[0].input[0] = "y"
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(UserError, match=r"c\.onnx is no valid ONNX model"):
        load(tmp_path / "c.onnx")


@pytest.mark.parametrize("version", [3, 4, 8])
def test_initializers_that_are_listed_as_inputs(tmp_path: Path, version: int) -> None:
    model = proto(CHAIN, WEIGHTS, opset=8, ir_version=8)
    listed = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in WEIGHTS.items()]
    model.graph.input.extend(listed)
    model.ir_version = version
    hub = expect_same(tmp_path / "v.onnx", model)
    assert hub.input_shape == (4, 7, 9)
    assert [layer.frozen_reason for layer in hub.layers()] == [None, None]


def test_pads_that_constants_compute(tmp_path: Path) -> None:
    """As torch's older exporter writes F.pad; behind it every size is known."""
    four = numpy_helper.from_array(np.array([4], np.int64))
    zero = numpy_helper.from_array(np.array([0], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["four"], value=four),
        helper.make_node("ConstantOfShape", ["four"], ["zeros"], value=zero),
        helper.make_node("Concat", ["ones", "zeros"], ["pairs"], axis=0),
        helper.make_node("Reshape", ["pairs", "two"], ["table"]),
        helper.make_node("Slice", ["table", "last", "first", "axis", "last"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["ends"], perm=[1, 0]),
        helper.make_node("Reshape", ["ends", "last"], ["pads"]),
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "a"], ["y"], name="behind"),
    ]
    constants = {"ones": np.ones(4, np.int64), "two": np.array([-1, 2]), "last": np.array([-1]),
                 "first": np.array([-(2**63) + 1]), "axis": np.array([0]), "a": WEIGHTS["a"]}  # fmt: skip
    hub = expect_same(tmp_path / "p.onnx", proto(nodes, constants))
    (layer,) = hub.layers()
    assert layer.frozen_reason is None
    assert layer.macs_known
    assert layer.dense_macs == 7 * 9 * 4 * 4 * 9
    assert "ConstantOfShape" not in {node.op_type for node in hub.model.graph}


def test_an_image_of_one_value_is_not_stored() -> None:
    """Only small constants are: a large one stays the operation that makes it."""
    import onnx_ir as ir

    from edgekron.graph.passes.fold_constants import fold_constants

    size = numpy_helper.from_array(np.array([1, 4, 300, 300], np.int64), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["z"]), helper.make_node("Add", ["x", "z"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 300, 300]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [size])
    model = ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    fold_constants(model)
    assert "ConstantOfShape" in {node.op_type for node in model.graph}


#: Nodes that make the weight of a layer of constants alone.
CHAINS = {
    "transposed": ([helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0])], {"w": random(5, 8)}),
    "the same": ([helper.make_node("Identity", ["w"], ["v"])], {"w": random(8, 5)}),
    "of float16": ([helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)], {"w": random(8, 5).astype("e")}),
    "of float64": ([helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)], {"w": random(8, 5).astype("d")}),
    "a constant": ([helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(random(8, 5)))], {}),
    "scaled": ([helper.make_node("Mul", ["w", "s"], ["v"])], {"w": random(8, 5), "s": random(1, 5)}),
    "a chain": (
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random(5, 8))),
            helper.make_node("Identity", ["w"], ["u"]),
            helper.make_node("Transpose", ["u"], ["t"], perm=[1, 0]),
            helper.make_node("Cast", ["t"], ["v"], to=TensorProto.FLOAT),
        ],
        {},
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_weights_that_constants_compute_are_constant(tmp_path: Path, chain: str) -> None:
    nodes, constants = CHAINS[chain]
    product = helper.make_node("MatMul", ["x", "v"], ["y"])
    hub = expect_same(tmp_path / "w.onnx", proto([*nodes, product], constants, shape=(8,)))
    assert [node.op_type for node in hub.model.graph] == ["MatMul"]
    assert [layer.frozen_reason for layer in hub.layers()] == [None]


def test_one_weight_through_two_chains(tmp_path: Path) -> None:
    """Each layer has a kernel of its own afterwards, and can be factorized."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "v"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    hub = expect_same(tmp_path / "w.onnx", proto(nodes, {"w": random(8, 8)}, shape=(8,)))
    assert [layer.frozen_reason for layer in hub.layers()] == [None, None]
