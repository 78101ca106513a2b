"""ONNX files with smaller types.

"float16" and "int8-dynamic" store smaller weights and compute in float32 (``weights``). "int8" is ONNX Runtime's own
quantizer: pairs of QuantizeLinear and DequantizeLinear, one scale for each output channel of a weight and one for each
activation. Activations are uint8 and weights int8, as ONNX Runtime's documentation advises for x86 with VNNI and allows
for ARM; on x86 without VNNI its kernels add pairs of products in 16 bits, which can saturate: evaluate the file there.

An output that joins several values joins them in float, so that each keeps its own range (``joins``).

ONNX has no scale for an input or output of a graph. A file whose inputs and outputs are integers has their scales in
its metadata, from which ``runtimes.agent.backends.onnxruntime`` reads them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxsim
from onnx import numpy_helper

from edgekron.errors import UserError
from edgekron.runtimes.agent.backends.onnxruntime import QUANTIZATION

from .activations import kept_clips, lower_activations
from .joins import name_joining_nodes
from .types import Quantization, pieces
from .weights import with_small_weights

#: Images that the calibrator runs at once where the network takes any number.
AT_ONCE = 8


def convert(proto: onnx.ModelProto, how: Quantization) -> tuple[onnx.ModelProto, dict[str, str]]:
    """(the float32 model ``proto`` in the type of ``how``, the entries that its metadata must have).

    Raises ``UserError`` for weights that float16 cannot hold, and for integer inputs or outputs of a layer that is not
    quantized.
    """
    if how.dtype != "int8":
        return with_small_weights(proto, "float16" if how.dtype == "float16" else "int8"), {}
    prepared = _with_stored_weights(proto)
    lower_activations(prepared)
    quantized = _static(prepared, how)
    if not how.integer_io:
        return quantized, {}
    return quantized, {QUANTIZATION: json.dumps(_integer_ends(quantized))}


def _with_stored_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every weight an initializer: a weight that is tiled at load could not be quantized."""
    simplified, _ = onnxsim.simplify(proto)
    entry = simplified.metadata_props.add()
    entry.key, entry.value = "onnx.quant.pre_process", "onnxruntime.quant"
    return simplified


class _Images:
    """Calibration images as ONNX Runtime's quantizer reads them, a few at a time, or as many as the network takes."""

    def __init__(self, entry: onnx.ValueInfoProto, images: Sequence[np.ndarray]) -> None:
        batch = entry.type.tensor_type.shape.dim[0].dim_value
        found = pieces(images, batch or AT_ONCE, exactly=bool(batch))
        self._items: Iterator[dict[str, np.ndarray]] = ({entry.name: x} for x in found)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next piece, None at the end."""
        return next(self._items, None)


def _static(proto: onnx.ModelProto, how: Quantization) -> onnx.ModelProto:
    from onnxruntime import quantization

    (entry,) = proto.graph.input
    with tempfile.TemporaryDirectory(prefix="edgekron-quantize-") as folder:
        target = Path(folder) / "quantized.onnx"
        quantization.quantize_static(
            proto,
            target,
            _Images(entry, how.images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*kept_clips(proto), *([] if how.integer_io else name_joining_nodes(proto))],
            # Else a reshape between the input and the first layer would stay float, and the input with it.
            extra_options={"ForceQuantizeNoInputCheck": how.integer_io},
        )
        return onnx.load(target)


def _integer_ends(proto: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Makes inputs and outputs the integers behind their QuantizeLinear and before their DequantizeLinear, in place.

    Gives (scale, zero point) by name.
    """
    graph = proto.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales: dict[str, tuple[float, int]] = {}
    for value in graph.input:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            continue
        readers = [node for node in graph.node if value.name in node.input]
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            raise UserError(f"input {value.name} is not quantized by the network's first layer; leave it float.")
        _retype(graph, value, readers[0], readers[0].output[0], arrays, scales)
    for value in graph.output:
        (writer,) = (node for node in graph.node if value.name in node.output)
        if writer.op_type != "DequantizeLinear":
            raise UserError(f"output {value.name} is {writer.op_type}, which stays float; leave the outputs float.")
        _retype(graph, value, writer, writer.input[0], arrays, scales)
    return scales


def _retype(
    graph: onnx.GraphProto,
    value: onnx.ValueInfoProto,
    node: onnx.NodeProto,
    inner: str,
    arrays: dict[str, np.ndarray],
    scales: dict[str, tuple[float, int]],
) -> None:
    """Makes ``inner``, the integer value on the other side of ``node``, the graph's input or output ``value``."""
    scale, zero = arrays[node.input[1]], arrays[node.input[2]]
    scales[value.name] = (float(scale), int(zero))
    value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
    graph.node.remove(node)
    for other in graph.node:
        for names in (other.input, other.output):
            for index, name in enumerate(names):
                if name == inner:
                    names[index] = value.name
