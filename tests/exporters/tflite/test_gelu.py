"""GELU written by the error function becomes one operator, in every spelling, and nothing else does."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]


def spelled(divides: bool, product: str, swapped: bool, half: float = 0.5) -> tuple[list[onnx.NodeProto], dict]:
    def node(operator: str, a: str, b: str, y: str) -> onnx.NodeProto:
        return helper.make_node(operator, [b, a] if swapped and operator != "Div" else [a, b], [y])

    nodes = [
        node("Div", "x", "root", "s") if divides else node("Mul", "x", "inverse", "s"),
        helper.make_node("Erf", ["s"], ["e"]),
        node("Add", "e", "one", "p"),
    ]
    nodes += {
        "last": [node("Mul", "x", "p", "q"), node("Mul", "q", "half", "y")],
        "inside": [node("Mul", "p", "half", "q"), node("Mul", "x", "q", "y")],
        "first": [node("Mul", "x", "half", "q"), node("Mul", "q", "p", "y")],
    }[product]
    numbers = {"root": np.sqrt(2), "inverse": np.sqrt(0.5), "one": 1.0, "half": half}
    used = {name for node in nodes for name in node.input}
    return nodes, {name: np.array(value, np.float32) for name, value in numbers.items() if name in used}


@pytest.mark.parametrize(
    ("divides", "product", "swapped"),
    list(itertools.product([True, False], ["last", "inside", "first"], [False, True])),
)
def test_every_spelling_is_one_operator(agree: Check, divides: bool, product: str, swapped: bool) -> None:
    nodes, constants = spelled(divides, product, swapped)
    assert agree(nodes, constants, (2, 3, 7, 8), opset=17, scale=3.0).operators == ["GELU"]


def test_another_constant_is_another_function(agree: Check) -> None:
    nodes, constants = spelled(True, "last", False, half=0.501)
    assert "GELU" not in agree(nodes, constants, (2, 3, 7, 8), opset=17).operators


def test_a_value_that_is_used_elsewhere_stays(agree: Check) -> None:
    nodes, constants = spelled(True, "last", False)
    nodes.append(helper.make_node("Relu", ["e"], ["z"]))
    assert "GELU" not in agree(nodes, constants, (2, 3, 7, 8), ["y", "z"], opset=17).operators
