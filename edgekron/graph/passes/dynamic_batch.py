"""Gives the input the shape [N, C, H, W] with a dynamic batch N, also in a file with a fixed batch.

A file with the fixed batch b also holds reshapes from [b, ...] to [b, ...]; these are rewritten to keep the first size
of their input. Constants are folded on the way, because the shape of a reshape is often computed from other shapes.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekron.errors import UserError

from .fold_batch_shapes import fold_batch_shapes
from .fold_constants import fold_constants
from .infer_shapes import forget_shapes, infer_shapes
from .keep_batch import keep_batch
from .pool_windows import count_pool_windows

BATCH = "N"
#: Types of inputs: numbers, the bytes of images, tokens and masks.
TYPES = (
    *(ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16),
    *(ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL),
)


def make_batch_dynamic(model: ir.Model, source: str, input_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Makes the first size of the one input, and so of the outputs, the symbol N; returns the input's other sizes.

    Sizes that the file leaves open stay open in the graph, so that no constant depends on ``input_shape``. Raises
    ``UserError`` for several inputs, for an input of another type than ``TYPES``, whose size is open or contradicts
    ``input_shape``, and for outputs that do not follow the batch.
    """
    value = _only_input(model, source)
    _check_readers(value, source)
    known = _input_size(value, source, input_shape)
    size = _open_size(value, known)
    batch = value.shape[0] if value.shape is not None and len(value.shape) else None
    # Folded with an open batch first, so that no size of the file's own batch gets into a constant.
    value.shape = ir.Shape([BATCH, *size])
    count_pool_windows(model)
    forget_shapes(model)
    fold_constants(model)
    infer_shapes(model)
    fold_batch_shapes(model)
    if isinstance(batch, int):
        value.shape = ir.Shape([batch, *size])
        infer_shapes(model)
        keep_batch(model)
        value.shape = ir.Shape([BATCH, *size])
    infer_shapes(model)
    for output in model.graph.outputs:
        if output.shape is not None and (not output.shape or isinstance(output.shape[0], int)):
            raise UserError(
                f"{source}: the output {output.name} has the shape {list(output.shape)}, whose first size does not "
                "follow the batch; export the model again with a dynamic first dimension"
            )
    return known


def _check_readers(value: ir.Value, source: str) -> None:
    """Raises ``UserError`` for a layer that takes the integers of the input as they are."""
    for node, index in value.uses():
        if index == 0 and value.dtype != ir.DataType.FLOAT and node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            raise UserError(
                f"{source}: layer {node.name} takes the input {value.name}, which is {value.dtype}, not float32; cast "
                "it in the model, or export the float32 model"
            )


def _open_size(value: ir.Value, known: tuple[int, ...]) -> list[int | str]:
    """The sizes behind the batch, with a symbol for each that the file leaves open."""
    if value.shape is None or len(value.shape) != len(known) + 1:
        return list(known)
    given = enumerate(zip(list(value.shape)[1:], known, strict=True), 1)
    return [size if isinstance(d, int) else f"size{axis}" for axis, (d, size) in given]


def _only_input(model: ir.Model, source: str) -> ir.Value:
    inputs = model.graph.inputs
    if len(inputs) != 1:
        names = ", ".join(str(v.name) for v in inputs)
        raise UserError(f"{source}: the model has {len(inputs)} inputs ({names}); a network with one image is needed")
    if inputs[0].dtype not in TYPES:
        raise UserError(
            f"{source}: the input {inputs[0].name} is {inputs[0].dtype}, and inputs are float32, integers or booleans; "
            "export the model with such an input"
        )
    return inputs[0]


def _input_size(value: ir.Value, source: str, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if value.shape is None or len(value.shape) < 2:
        if wanted is None:
            raise UserError(
                f"{source}: the input {value.name} has no shape [N, C, H, W]; say it by --input-shape C,H,W"
            )
        return wanted
    given = list(value.shape)[1:]
    if wanted is None:
        if any(not isinstance(d, int) for d in given):
            text = ", ".join(str(d) for d in value.shape)
            raise UserError(
                f"{source}: the input {value.name} has open sizes, [{text}]; "
                "say the size to plan for by --input-shape C,H,W"
            )
        return tuple(d for d in given if isinstance(d, int))
    if len(wanted) != len(given) or any(isinstance(d, int) and d != w for d, w in zip(given, wanted, strict=True)):
        raise UserError(f"{source}: the input {value.name} has the shape {given} without batch, not {list(wanted)}")
    return wanted
