"""Reductions over axes."""

from __future__ import annotations

from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, axes_of

_CODES = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}


@translates(*_CODES)
def reduce_axes(call: Call) -> None:
    """Reduces the tensor's axes where they lie; nothing moves."""
    x = call.value()
    rank = len(x.order)
    axes = call.vector(1, "axes")
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            call.result(x)
            return
        axes = list(range(rank))
    reduced = axes_of(axes, rank)
    keep = bool(call.attribute("keepdims", 1))
    places = sorted(x.axis(a) for a in reduced)
    if keep:
        shape = [1 if i in places else n for i, n in enumerate(x.tensor.shape)]
        order = x.order
    else:
        shape = [n for i, n in enumerate(x.tensor.shape) if i not in places]
        left = [a for a in x.order if a not in reduced]
        order = tuple(sorted(left).index(a) for a in left)
    inputs = [x.tensor, call.program.integers(f"{call.name}/axes", places)]
    call.finish(call.program.emit(_CODES[call.node.op_type], inputs, shape, call.name, keepDims=keep), order)
