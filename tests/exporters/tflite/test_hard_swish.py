"""Hard-swish written out becomes one operator, in every spelling, and nothing else does."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]
PRODUCTS = ("quotient", "sixth", "quotient inside", "sixth inside", "quotient first", "sixth first")


def spelled(product: str, swapped: bool, three: float = 3.0) -> tuple[list[onnx.NodeProto], dict]:
    def node(operator: str, a: str, b: str, y: str) -> onnx.NodeProto:
        return helper.make_node(operator, [b, a] if swapped and operator != "Div" else [a, b], [y])

    over = ("Div", "six") if product.startswith("quotient") else ("Mul", "sixth")
    nodes = [node("Add", "x", "three", "a"), helper.make_node("Clip", ["a", "zero", "six"], ["g"])]
    if product.endswith("inside"):
        nodes += [node(over[0], "g", over[1], "q"), node("Mul", "x", "q", "y")]
    elif product.endswith("first"):
        nodes += [node(over[0], "x", over[1], "q"), node("Mul", "q", "g", "y")]
    else:
        nodes += [node("Mul", "x", "g", "q"), node(over[0], "q", over[1], "y")]
    numbers = {"three": three, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
    used = {name for node in nodes for name in node.input}
    return nodes, {name: np.array(value, np.float32) for name, value in numbers.items() if name in used}


@pytest.mark.parametrize(("product", "swapped"), list(itertools.product(PRODUCTS, [False, True])))
def test_every_spelling_is_one_operator(agree: Check, product: str, swapped: bool) -> None:
    nodes, constants = spelled(product, swapped)
    assert agree(nodes, constants, (2, 3, 7, 8), opset=17, scale=3.0).operators == ["HARD_SWISH"]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("alpha", "joined"), [(1 / 6, True), (0.2, False)])
@pytest.mark.parametrize("stated", [{}, {"beta": 0.5}])
def test_a_product_by_hard_sigmoid(agree: Check, swapped: bool, alpha: float, joined: bool, stated: dict) -> None:
    nodes = [
        helper.make_node("HardSigmoid", ["x"], ["g"], alpha=alpha, **stated),
        helper.make_node("Mul", ["g", "x"] if swapped else ["x", "g"], ["y"]),
    ]
    operators = agree(nodes, {}, (2, 3, 7, 8), opset=17, scale=3.0).operators
    assert (operators == ["HARD_SWISH"]) == joined


def test_another_constant_is_another_function(agree: Check) -> None:
    nodes, constants = spelled("quotient", False, three=3.01)
    assert "HARD_SWISH" not in agree(nodes, constants, (2, 3, 7, 8), opset=17).operators


def test_a_value_that_is_used_elsewhere_stays(agree: Check) -> None:
    nodes, constants = spelled("quotient", False)
    nodes.append(helper.make_node("Relu", ["g"], ["z"]))
    assert "HARD_SWISH" not in agree(nodes, constants, (2, 3, 7, 8), ["y", "z"], opset=17).operators
