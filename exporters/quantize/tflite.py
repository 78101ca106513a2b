"""TFLite files with smaller types, by ai-edge-quantizer.

    float16        weights as float16 behind a DEQUANTIZE, which XNNPACK takes as half-precision weights
    int8-dynamic   weights int8, one scale for each output channel, or for the whole matrix of a fully connected layer;
                   the runtime's kernels quantize activations while they run
    int8           activations int8 too, one scale for each, from the smallest to the largest value on the images;
                   every bias fits into int32 (``biases``)

An output that joins several values joins them in float, so that each keeps its own range (``joins``).

The quantizer's own file keeps large buffers behind the flatbuffer, out of sight of older runtimes, and does not align
the other buffers. So the file is written again by ``exporters.tflite.writer``.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekron.errors import UserError
from edgekron.exporters.tflite.formula import FLOATS
from edgekron.exporters.tflite.layout import End
from edgekron.exporters.tflite.outline import outline
from edgekron.exporters.tflite.read import read
from edgekron.exporters.tflite.writer import SIGNATURE, repack
from edgekron.graph.joins import joining_moves

from .biases import fit_biases
from .types import LARGEST_FLOAT16, Quantization, pieces

#: Operators that stay in float32, with conversions at both ends: the integer kernels of the first two are wrong or stop
#: at a divisor that is rounded to zero, and those of the others are slower than XNNPACK's in float32.
_FLOAT = ("BATCH_MATMUL", "DIV", "GELU", "SQRT")


def convert(data: bytes, how: Quantization, input_name: str) -> bytes:
    """The float32 file ``data``, whose input is called ``input_name``, in the type of ``how``."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        # The quantizer shows progress bars, and its interpreter warns that all tensors are kept, which is intended.
        warnings.simplefilter("ignore")
        return _quantized(data, how, input_name)


def _quantized(data: bytes, how: Quantization, input_name: str) -> bytes:
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import read_model

    work = quantizer.Quantizer(bytearray(data))
    ranges = None
    if how.dtype == "float16":
        _refuse_beyond_float16(data)
        work.add_weight_only_config(".*", TFLOperationName.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif how.dtype == "int8-dynamic":
        work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        # Runtimes up to 2.14 take the scales of a matrix's channels for zero, and say nothing.
        work.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, 8, QuantGranularity.TENSORWISE)
    else:
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        if not how.integer_io:
            for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
            for name in _joining(data):
                work.update_quantization_recipe(
                    f"^{re.escape(name)};", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
                )
        for operator in _FLOAT:
            work.update_quantization_recipe(".*", TFLOperationName(operator), algorithm_key=AlgorithmName.NO_QUANTIZE)
        everything = TFLOperationName.ALL_SUPPORTED
        work.update_quantization_recipe(FLOATS, everything, algorithm_key=AlgorithmName.NO_QUANTIZE)
        ranges = _ranges(data, work.get_quantization_recipe(), how.images, input_name)
    result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    model = read_model(result.quantized_model)
    if how.dtype == "int8":
        fit_biases(model, read(data).model)
    return repack(model)


def _joining(data: bytes) -> list[str]:
    """The tensor that each operator makes, the first of several, of those which join outputs."""
    return [str(move.outputs[0].name) for move in joining_moves(outline(read(data)))]


def _refuse_beyond_float16(data: bytes) -> None:
    """Refuses weights that float16 cannot hold; the quantizer would write infinity for them."""
    contents = read(data)
    for tensor in contents.graph.tensors:
        buffer = contents.model.buffers[tensor.buffer].data
        if buffer is None or tensor.type != schema.TensorType.FLOAT32:
            continue
        largest = float(np.abs(np.frombuffer(buffer, np.float32)).max(initial=0.0))
        if largest > LARGEST_FLOAT16:
            name = tensor.name.decode()
            raise UserError(f"the weight {name} has values up to {largest:g}, beyond float16; use --dtype float32.")


def _ranges(data: bytes, recipe: object, images: Sequence[np.ndarray], input_name: str) -> object:
    """The smallest and largest value of every activation on all images; the quantizer's default forgets early ones."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    work = calibrator.Calibrator(bytearray(data), num_threads=1, qsv_update_func=min_max_update)
    contents = read(data)
    batch = int(contents.graph.tensors[contents.graph.inputs[0]].shape[0])
    (end,) = contents.inputs.values()
    work.calibrate({SIGNATURE: _Images(input_name, images, batch, end)}, manager)
    return work.get_model_qsvs()


class _Images:
    """Calibration images in the file's layout and batch."""

    def __init__(self, name: str, images: Sequence[np.ndarray], batch: int, end: End) -> None:
        self._name, self._images, self._batch, self._end = name, images, batch, end

    def __len__(self) -> int:
        return sum(-(-len(images) // self._batch) for images in self._images)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for x in pieces(self._images, self._batch, exactly=True):
            yield {self._name: np.ascontiguousarray(x.transpose(self._end.order(x.ndim)))}
