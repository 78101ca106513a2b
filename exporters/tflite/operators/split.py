"""Split: one slice for each part."""

from __future__ import annotations

from edgekron.exporters.tflite.layout import Value
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call

from .slicing import strided_slice


@translates("Split")
def split(call: Call) -> None:
    """Parts of given sizes, or of equal sizes with the last part smaller."""
    x = call.value(kinds=ANY)
    axis = x.axis(int(call.attribute("axis", 0)))
    size, count = x.tensor.shape[axis], len(call.node.outputs)
    sizes = call.vector(1, "sizes", "split")
    if sizes is None:
        each = -(-size // count)
        sizes = [max(min(each, size - i * each), 0) for i in range(count)]
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        call.refuse(f"an axis of {size} cannot be split into {sizes}", "split it into parts of at least one value")
    start = 0
    for index, part in enumerate(sizes):
        name = call.node.outputs[index].name or f"{call.name}/{index}"
        taken = strided_slice(call.program, x.tensor, {axis: (start, 1, part)}, name)
        call.result(Value(taken, x.order), index)
        start += part
