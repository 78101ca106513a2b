"""Constants and known sizes among the values of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant; None for a computed value, and for an input that a node lacks."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def float_constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a float32 constant; None for any other value."""
    if value is None or value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
        return None
    return value.const_value.numpy()


def required(node: ir.Node, index: int) -> ir.Value:
    """The input of a node at a place that its operator always fills. Raises ``ValueError`` for an empty place."""
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"node {node.name} ({node.op_type}) lacks its input {index}")
    return value


def sizes_behind_batch(value: ir.Value | None) -> list[int] | None:
    """All sizes of a value but the first; None if any of these is not known."""
    if value is None or value.shape is None:
        return None
    sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
    return sizes if len(sizes) == len(value.shape) - 1 else None
