"""Concat."""

from __future__ import annotations

from edgekron.exporters.tflite.layout import NHWC, free
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call


@translates("Concat")
def concat(call: Call) -> None:
    """CONCATENATION of the parts, all in one order of axes."""
    count = len(call.node.inputs)
    moving = [call.value(i, kinds=ANY) for i in range(count) if call.array(i) is None]
    rank = len(moving[0].order)
    order = NHWC if rank == 4 and any(free(v, NHWC) for v in moving) else moving[0].order
    parts = [call.value(i, order, ANY) for i in range(count)]
    axis = parts[0].axis(int(call.attribute("axis")))
    shape = list(parts[0].tensor.shape)
    shape[axis] = sum(part.tensor.shape[axis] for part in parts)
    y = call.program.emit("CONCATENATION", [p.tensor for p in parts], shape, call.name, axis=axis)
    call.finish(y, order)
