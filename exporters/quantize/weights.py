"""ONNX files whose weights alone are smaller; the arithmetic stays float32.

    float16    a weight is W16, read as Cast(W16)
    int8       a weight is Q with one scale s for each output channel, read as Cast(Q) * s

Runtimes fold both into a constant when loading the file, so that an inference takes as long as in float32. This is why
int8 weights are not behind a DequantizeLinear: ONNX Runtime keeps that operator and runs it for every image (1.7 times
the time of the bundled network). Activations stay float because ONNX Runtime's ConvInteger takes 25 times as long as
Conv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekron.errors import UserError

from .types import LARGEST_FLOAT16

#: A stored weight: its initializers, and the nodes that read the weight from them.
_Stored = tuple[list[TensorProto], list[onnx.NodeProto]]

#: Operators whose constant inputs are weights. Tile, Reshape and Einsum make a weight from what is stored once.
_READERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "Tile", "Reshape", "Einsum"))


def with_small_weights(proto: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """A copy whose weights, constants of two or more axes, are "float16" or "int8".

    Raises ``UserError`` for a weight that float16 cannot hold.
    """
    store: Callable[[str, np.ndarray, int], _Stored] = {"float16": _float16, "int8": _int8}[dtype]
    axes = _output_axes(proto)
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    initializers, nodes = [], []
    for tensor in made.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or tensor.name not in axes:
            initializers.append(tensor)
            continue
        stored, readers = store(tensor.name, numpy_helper.to_array(tensor), axes[tensor.name])
        initializers += stored
        nodes += readers
    nodes += made.graph.node
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend(initializers)
    made.graph.node.extend(nodes)
    return made


def _output_axes(proto: onnx.ModelProto) -> Mapping[str, int]:
    """The axis of the output channels of every constant that is a weight."""
    axes: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type not in _READERS:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        for place, name in enumerate(node.input):
            columns = place == 1 and (node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed))
            axes.setdefault(name, -1 if columns else 1 if node.op_type == "ConvTranspose" else 0)
    return axes


def _float16(name: str, weight: np.ndarray, axis: int) -> _Stored:
    del axis
    largest = float(np.abs(weight).max(initial=0.0))
    if largest > LARGEST_FLOAT16:
        raise UserError(f"the weight {name} has values up to {largest:g}, beyond float16; use --dtype float32.")
    stored = numpy_helper.from_array(weight.astype(np.float16), f"{name}.float16")
    return [stored], [helper.make_node("Cast", [stored.name], [name], name=f"{name}.Cast", to=TensorProto.FLOAT)]


def _int8(name: str, weight: np.ndarray, axis: int) -> _Stored:
    from onnxruntime.quantization.quant_utils import quantize_data

    channels = np.moveaxis(weight, axis, 0)
    rows = [quantize_data(channel, TensorProto.INT8, symmetric=True)[1:] for channel in channels]
    shape = [1] * weight.ndim
    shape[axis] = -1
    integers = np.moveaxis(np.stack([np.asarray(q) for _, q in rows]), 0, axis)
    scale = np.array([s for s, _ in rows], np.float32).reshape(shape)
    stored = numpy_helper.from_array(np.ascontiguousarray(integers, np.int8), f"{name}.int8")
    scales = numpy_helper.from_array(scale, f"{name}.scale")
    cast = helper.make_node("Cast", [stored.name], [f"{name}.integers"], name=f"{name}.Cast", to=TensorProto.FLOAT)
    scaled = helper.make_node("Mul", [f"{name}.integers", scales.name], [name], name=f"{name}.Mul")
    return [stored, scales], [cast, scaled]
