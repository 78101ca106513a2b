"""Constants that are not finite are found when a file is read, and legitimate infinities are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekron.errors import UserError
from edgekron.graph import load

from .single import expect_same, proto, random

if TYPE_CHECKING:
    from pathlib import Path

make = helper.make_node
LOW = np.float32(-np.inf)
MASK = np.where(np.arange(9) < 6, 0, LOW).astype(np.float32)

LEGITIMATE = {
    "limits": ([make("Clip", ["x", "z", "h"], ["y"])], {"z": np.float32(0), "h": np.float32(np.inf)}),
    "padding": (
        [make("Pad", ["x", "p", "l"], ["t"]), make("MaxPool", ["t"], ["y"], kernel_shape=[3, 3])],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "l": LOW},
    ),
    "least": ([make("Max", ["x", "l"], ["y"])], {"l": LOW}),
    "a choice": (
        [make("Greater", ["x", "z"], ["c"]), make("Where", ["c", "x", "l"], ["m"]), make("Softmax", ["m"], ["y"])],
        {"z": np.float32(-9), "l": LOW},
    ),
    "an added mask": ([make("Add", ["x", "m"], ["s"]), make("Softmax", ["s"], ["y"])], {"m": MASK}),
    "a subtracted mask": ([make("Sub", ["x", "m"], ["s"]), make("Softmax", ["s"], ["y"])], {"m": -MASK}),
    "a mask that is moved": (
        [make("Shape", ["x"], ["n"]), make("Expand", ["m", "n"], ["e"]), make("Add", ["e", "x"], ["s"]),
         make("Reshape", ["s", "r"], ["t"]), make("Softmax", ["t"], ["y"])],
        {"m": MASK, "r": np.array([0, 28, 9])},
    ),
    "a mask in front of a maximum": (
        [make("Add", ["x", "m"], ["s"]), make("ReduceMax", ["s"], ["y"], axes=[3])], {"m": MASK},
    ),
    "a comparison": (
        [make("Less", ["x", "h"], ["c"]), make("Cast", ["c"], ["y"], to=1)], {"h": np.float32(np.inf)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGITIMATE)
def test_limits_fillings_and_masks(tmp_path: Path, name: str) -> None:
    expect_same(tmp_path / "l.onnx", proto(*LEGITIMATE[name]))


def spoiled(value: float, *shape: int) -> np.ndarray:
    array = random(*shape)
    array.flat[1 % array.size] = value
    return array


REFUSED = {
    "a divisor": ([make("Div", ["x", "w"], ["y"], name="node")], (4, 1, 1)),
    "a difference": ([make("Sub", ["x", "w"], ["y"], name="node")], (4, 1, 1)),
    "a factor": ([make("Mul", ["x", "w"], ["y"], name="node")], (1,)),
    "a sum that is an output": ([make("Add", ["x", "w"], ["y"], name="node")], (9,)),
    "slopes": ([make("PRelu", ["x", "w"], ["y"], name="node")], (4, 1, 1)),
    "a bias": ([make("Conv", ["x", "k", "w"], ["y"], name="node")], (5,)),
    "a table": (
        [make("Gather", ["w", "i"], ["t"], name="node"), make("Mul", ["x", "t"], ["y"])], (4, 9),
    ),
}  # fmt: skip
CONSTANTS = {"k": random(5, 4, 1, 1), "i": np.array(1)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", REFUSED)
def test_what_reaches_an_output_is_refused(tmp_path: Path, name: str, bad: float) -> None:
    nodes, shape = REFUSED[name]
    used = {key: array for key, array in CONSTANTS.items() if any(key in node.input for node in nodes)}
    model = proto(nodes, used | {"w": random(*shape)})
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(spoiled(bad, *shape), "w"))
    onnx.save(model, tmp_path / "r.onnx")
    with pytest.raises(UserError, match=r"the weights of layer .* contain NaN or infinite values"):
        load(tmp_path / "r.onnx")


def test_nan_is_refused_where_infinity_is_legitimate(tmp_path: Path) -> None:
    for name in ("limits", "padding", "an added mask"):
        nodes, constants = LEGITIMATE[name]
        key = next(key for key, array in constants.items() if not np.isfinite(array).all())
        array = np.where(np.isfinite(constants[key]), constants[key], np.float32(np.nan))
        model = proto(nodes, constants)
        for tensor in model.graph.initializer:
            if tensor.name == key:
                tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), key))
        onnx.save(model, tmp_path / "n.onnx")
        with pytest.raises(UserError, match="contain NaN or infinite"):
            load(tmp_path / "n.onnx")


def test_what_reaches_no_output_is_left_alone(tmp_path: Path) -> None:
    nodes = [make("Mul", ["x", "w"], ["dead"]), make("Relu", ["x"], ["y"])]
    expect_same(tmp_path / "d.onnx", proto(nodes, {"w": np.array([np.nan, 1] * 9, np.float32)[:9]}))
