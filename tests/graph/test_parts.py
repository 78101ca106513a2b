"""Which part, and which channel of it, each value of a joined output belongs to."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.outline import outline
from edgekron.exporters.tflite.read import read
from edgekron.graph.joins import joining_moves
from edgekron.graph.parts import joined_in_file, joined_outputs
from tests.detectors import CLASSES, DETECTORS, PLAIN, Anchors, Free, Joined, hub, images

#: By network: region, probability, channels of each part.
PARTS = {
    Joined: [("[:, 0:4]", False, 4), ("[:, 4:9]", True, CLASSES)],
    Anchors: [
        ("[:, 0:768, 0:2]", False, 3 * 2),
        ("[:, 0:768, 2:4]", False, 3 * 2),
        ("[:, 0:768, 4:10]", True, 3 * (1 + CLASSES)),
        ("[:, 768:960, 0:2]", False, 3 * 2),
        ("[:, 768:960, 2:4]", False, 3 * 2),
        ("[:, 768:960, 4:10]", True, 3 * (1 + CLASSES)),
    ],
    # Two layers of each kind, on two maps.
    Free: [("[:, 0:4]", False, 2 * 4), ("[:, 4:9]", True, 2 * CLASSES)],
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_parts_of_detectors(kind: type[nn.Module]) -> None:
    net = hub(kind)
    (output,) = joined_outputs(net.model.graph).values()
    assert [(p.region, p.probability, int(p.channels.max()) + 1) for p in output.parts] == PARTS[kind]
    assert sorted(np.concatenate([part.places for part in output.parts])) == list(range(int(np.prod(output.shape))))
    # The values at the places of a part are those of the value that the part is named by.
    names = [part.value for part in output.parts]
    x = images(2)
    model = net.submodel([net.input_name], [output.name, *names]).SerializeToString()
    joined, *values = onnxruntime.InferenceSession(model).run(None, {net.input_name: x})
    for part, value in zip(output.parts, values, strict=True):
        found = output.images(joined)[:, part.places]
        # The rows of anchors come whole out of one sigmoid, of which boxes take the first four columns.
        own = value[..., 4:] if kind is Anchors and part.probability else value
        np.testing.assert_array_equal(np.sort(found), np.sort(own.reshape(2, -1)))


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_file_has_the_parts_of_its_hub(kind: type[nn.Module]) -> None:
    net = hub(kind)
    (wanted,) = joined_outputs(net.model.graph).values()
    (in_onnx,) = joined_in_file(net.proto()).values()
    (in_tflite,) = joined_outputs(outline(read(export_tflite(net)), channels_first=True)).values()
    for found in (in_onnx, in_tflite):
        assert found.shape == wanted.shape
        assert [p.region for p in found.parts] == [p.region for p in wanted.parts]
        for part, other in zip(found.parts, wanted.parts, strict=True):
            assert part.probability == other.probability
            np.testing.assert_array_equal(part.places, other.places)


@pytest.mark.parametrize("kind", PLAIN)
def test_outputs_of_one_value_have_no_parts(kind: type[nn.Module]) -> None:
    graph = hub(kind).model.graph
    assert joined_outputs(graph) == {}
    assert joining_moves(graph) == []


def model(nodes: list[onnx.NodeProto], shape: list[int | str], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """From x [N, 4, 6, 6] to y, of which ``shape`` is told."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = ("x", ["N", 4, 6, 6]), ("y", shape)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in ends)
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def parts(nodes: list[onnx.NodeProto], shape: list[int | str], **constants: np.ndarray) -> list[tuple[str, str, bool]]:
    """Name, region and kind of all parts of y."""
    proto = model(nodes, shape, constants)
    onnx.checker.check_model(proto)
    found = joined_in_file(proto)
    return [(part.name, part.region, part.probability) for part in found["y"].parts] if found else []


A, B = helper.make_node("Abs", ["x"], ["/head/a_output_0"]), helper.make_node("Sigmoid", ["x"], ["b"])


def test_names_and_regions_through_moves() -> None:
    join = helper.make_node("Concat", ["/head/a_output_0", "b"], ["c"], axis=-1)
    tail = [helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]), helper.make_node("Identity", ["t"], ["y"])]
    wanted = [("head/a", "[:, :, 0:6]", False), ("b", "[:, :, 6:12]", True)]
    assert parts([A, B, join, *tail], ["N", 6, 12, 4]) == wanted


def test_a_part_of_a_value_in_several_places() -> None:
    """Every second row; a part that is no block has no region."""
    slices = [
        helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["s"]),
        helper.make_node("Abs", ["s"], ["a"]),
        helper.make_node("Unsqueeze", ["a", "last"], ["a1"]),
        helper.make_node("Neg", ["s"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "last"], ["n1"]),
        helper.make_node("Concat", ["a1", "n1"], ["c"], axis=4),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    numbers = {"start": [0], "end": [6], "axis": [2], "step": [2], "last": [4]}
    constants = {name: np.array(value, np.int64) for name, value in numbers.items()}
    assert parts(slices, ["N", 4 * 3 * 6 * 2], **constants) == [("a", "", False), ("n", "", False)]


def test_a_constant_is_no_part() -> None:
    with_grid = [A, B, helper.make_node("Concat", ["grid", "/head/a_output_0", "b"], ["y"], axis=1)]
    assert parts(with_grid, ["N", 9, 6, 6], grid=np.zeros((1, 1, 6, 6), np.float32)) == [
        ("head/a", "[:, 1:5]", False),
        ("b", "[:, 5:9]", True),
    ]
    alone = [A, helper.make_node("Concat", ["grid", "/head/a_output_0"], ["y"], axis=1)]
    assert parts(alone, ["N", 5, 6, 6], grid=np.zeros((1, 1, 6, 6), np.float32)) == []


def test_what_keeps_a_probability() -> None:
    """Products, maxima and roots of probabilities, but not twice a probability or what a weight makes of it."""
    made = [
        helper.make_node("Mul", ["b", "b"], ["product"]),
        helper.make_node("Sqrt", ["product"], ["root"]),
        helper.make_node("Mul", ["b", "two"], ["double"]),
        helper.make_node("Mul", ["b", "x"], ["silu"]),
        helper.make_node("Concat", ["root", "double", "silu"], ["y"], axis=1),
    ]
    found = parts([B, *made], ["N", 12, 6, 6], two=np.array(2, np.float32))
    assert [one[::2] for one in found] == [("root", True), ("double", False), ("silu", False)]


def test_places_that_depend_on_values_are_not_guessed() -> None:
    """The rows that are not zero: nobody knows how many."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Abs", ["f"], ["a"]),
        helper.make_node("Concat", ["f", "a"], ["y"], axis=0),
    ]
    assert parts(nodes, [8, "rows"]) == []


def test_a_fixed_batch() -> None:
    proto = model([A, B, helper.make_node("Concat", ["/head/a_output_0", "b"], ["y"], axis=1)], [3, 8, 6, 6], {})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    (output,) = joined_in_file(proto).values()
    assert output.shape == (1, 8, 6, 6)
    assert output.images(np.zeros((3, 8, 6, 6), np.float32)).shape == (3, 8 * 36)
    assert output.images(np.zeros((3, 8, 6, 7), np.float32)) is None
