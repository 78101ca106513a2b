"""Activations of an ONNX file in the operators that ONNX Runtime computes in integers.

ONNX Runtime has integer kernels for sums and products of values, LeakyRelu and Sigmoid; a Clip becomes the range of the
value before. Every other activation of an int8 file is computed in float, between two conversions. Before a file is
quantized

    HardSwish(x)            ->  x Clip(x + 3, 0, 6) / 6
    HardSigmoid(x)          ->  Clip(x + 6 beta, 0, 6) / 6, where alpha is 1/6
    Div(x, constant)        ->  Mul(x, 1 / constant)
    PRelu(x, one number)    ->  LeakyRelu(x)

``docs/measured/activations.md`` has the times. The range of an integer value always has zero, so that a Clip whose
bounds do not have zero between them cannot be a range: the quantizer would drop it and its nearer bound
(``kept_clips``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper


def lower_activations(proto: onnx.ModelProto) -> None:
    """Lowers the activations of a model in place."""
    lowering = _Lowering(proto)
    for node in list(proto.graph.node):
        lowering.lower(node)
    del proto.graph.node[:]
    proto.graph.node.extend(lowering.nodes)
    used = {name for node in lowering.nodes for name in node.input} | {value.name for value in proto.graph.output}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def kept_clips(proto: onnx.ModelProto) -> list[str]:
    """The names of Clip nodes that no range of integers stands for; a node without a name gets one."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if not tensor.dims}
    names = []
    for node in proto.graph.node:
        if node.op_type != "Clip":
            continue
        low, high = (constants.get(name, np.float32(0)) for name in [*node.input[1:], "", ""][:2])
        if low > 0 or high < 0:
            node.name = node.name or f"{node.output[0]}.Clip"
            names.append(node.name)
    return names


class _Lowering:
    """The nodes so far, and the constants of the model."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._initializers = proto.graph.initializer
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._rules: dict[str, Callable[[onnx.NodeProto], bool]] = {
            "HardSwish": self._hard_swish,
            "HardSigmoid": self._hard_sigmoid,
            "Div": self._division,
            "PRelu": self._prelu,
        }

    def lower(self, node: onnx.NodeProto) -> None:
        """Appends what stands for a node: the node itself unless a rule applies."""
        rule = None if node.domain else self._rules.get(node.op_type)
        if rule is None or not rule(node):
            self.nodes.append(node)

    def _hard_swish(self, node: onnx.NodeProto) -> bool:
        x, y = node.input[0], node.output[0]
        gated = self._add("Mul", [x, self._relu6(x, 3.0, y)], f"{y}.gated")
        self._add("Mul", [gated, self._number(f"{y}.sixth", 1 / 6)], y)
        return True

    def _hard_sigmoid(self, node: onnx.NodeProto) -> bool:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
        # One more product would make it slower than in float.
        if abs(6 * alpha - 1) > 1e-6:
            return False
        y = node.output[0]
        self._add("Mul", [self._relu6(node.input[0], 6 * beta, y), self._number(f"{y}.sixth", 1 / 6)], y)
        return True

    def _division(self, node: onnx.NodeProto) -> bool:
        divisor = self._constants.get(node.input[1])
        if divisor is None or divisor.data_type != onnx.TensorProto.FLOAT:
            return False
        with np.errstate(divide="ignore", over="ignore"):
            inverse = 1 / numpy_helper.to_array(divisor)
        if not np.isfinite(inverse).all():
            return False
        self._add("Mul", [node.input[0], self._constant(f"{node.output[0]}.inverse", inverse)], node.output[0])
        return True

    def _prelu(self, node: onnx.NodeProto) -> bool:
        slope = self._constants.get(node.input[1])
        values = np.unique(numpy_helper.to_array(slope)) if slope is not None else np.zeros(0)
        if values.size != 1:
            return False
        alpha, y = float(values[0]), node.output[0]
        self.nodes.append(helper.make_node("LeakyRelu", [node.input[0]], [y], f"{y}.LeakyRelu", alpha=alpha))
        return True

    def _relu6(self, x: str, summand: float, y: str) -> str:
        moved = self._add("Add", [x, self._number(f"{y}.summand", summand)], f"{y}.moved")
        bounds = [self._number(f"{y}.{name}", value) for name, value in (("low", 0.0), ("high", 6.0))]
        return self._add("Clip", [moved, *bounds], f"{y}.gate")

    def _add(self, operator: str, inputs: list[str], output: str) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], f"{output}.{operator}"))
        return output

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._initializers.append(numpy_helper.from_array(array, name))
        return name
