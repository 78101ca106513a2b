"""Which operators disappear, and which must not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]


def constants(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "w": rng.standard_normal((6, 4, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
        "v": rng.standard_normal((6, 1, 1)).astype(np.float32),
        "map": rng.standard_normal((1, 1, 6, 6)).astype(np.float32),
        "two": np.array([2.0], np.float32),
    }


def conv(output: str = "c") -> object:
    return helper.make_node("Conv", ["x", "w", "b"], [output])


CASES = {
    "bias": ([conv(), helper.make_node("Add", ["c", "v"], ["y"])], ["y"], ["CONV_2D"]),
    "bias and activation": (
        [conv(), helper.make_node("Add", ["v", "c"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        ["y"],
        ["CONV_2D"],
    ),
    "scalar bias": ([conv(), helper.make_node("Add", ["c", "two"], ["y"])], ["y"], ["CONV_2D"]),
    "a map is no bias": ([conv(), helper.make_node("Add", ["c", "map"], ["y"])], ["y"], ["CONV_2D", "ADD"]),
    "bias behind an activation": (
        [conv(), helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Add", ["r", "v"], ["y"])],
        ["y"],
        ["CONV_2D", "ADD"],
    ),
    "value read twice": (
        [conv(), helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Add", ["r", "c"], ["y"])],
        ["y"],
        ["CONV_2D", "RELU", "ADD"],
    ),
    "value is an output": (
        [conv("c"), helper.make_node("Relu", ["c"], ["y"])],
        ["y", "c"],
        ["CONV_2D", "RELU"],
    ),
    "two activations": (
        [conv(), helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Clip", ["r", "", "one"], ["y"])],
        ["y"],
        ["CONV_2D", "MINIMUM"],
    ),
    "through a shuffle": (
        [
            conv(),
            helper.make_node("Reshape", ["c", "split"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", ["t", "join"], ["j"]),
            helper.make_node("Relu", ["j"], ["y"]),
        ],
        ["y"],
        ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE"],
    ),
    "residual": (
        [
            conv("a"),
            helper.make_node("Relu", ["a"], ["r"]),
            conv("b2"),
            helper.make_node("Add", ["r", "b2"], ["s"]),
            helper.make_node("Relu", ["s"], ["y"]),
        ],
        ["y"],
        ["CONV_2D", "CONV_2D", "ADD"],
    ),
    "a node that nothing reads": (
        [conv("y"), helper.make_node("Tanh", ["y"], ["dead"])],
        ["y"],
        ["CONV_2D"],
    ),
    "one output twice": ([conv("y"), helper.make_node("Identity", ["y"], ["z"])], ["y", "z"], ["CONV_2D", "RESHAPE"]),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_left(agree: Check, rng: np.random.Generator, case: str) -> None:
    nodes, outputs, expected = CASES[case]
    arrays = constants(rng) | {
        "one": np.array(1, np.float32),
        "split": np.array([0, 2, 3, 6, 6]),
        "join": np.array([0, 6, 6, 6]),
    }
    used = {name for n in nodes for name in n.input}
    contents = agree(nodes, {k: v for k, v in arrays.items() if k in used}, (2, 4, 8, 8), outputs)
    assert contents.operators == expected


def test_file_header_signature_and_metadata(agree: Check, rng: np.random.Generator) -> None:
    contents = agree([conv("y")], {k: v for k, v in constants(rng).items() if k in "wb"}, (1, 4, 8, 8))
    model = contents.model
    assert contents.data[4:8] == b"TFL3"
    assert model.version == 3
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [entry.name for entry in signature.inputs + signature.outputs] == [b"x", b"y"]
    (metadata,) = model.metadata
    assert metadata.name == b"edgekron_version"
    assert bytes(model.buffers[metadata.buffer].data).decode().count(".") == 2
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in model.operatorCodes)


def test_versions(agree: Check, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((4, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["plain"]),
        helper.make_node("Conv", ["x", "w"], ["dilated"], dilations=[2, 2]),
        helper.make_node("Conv", ["x", "g"], ["grouped"], group=2),
    ]
    arrays = {"w": rng.standard_normal((4, 4, 3, 3)).astype(np.float32), "g": weight}
    contents = agree(nodes, arrays, (1, 4, 8, 8), ["plain", "dilated", "grouped"])
    assert [code.version for code in contents.model.operatorCodes] == [1, 2, 6]
