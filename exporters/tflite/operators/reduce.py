"""Reductions over axes. Every axis is reduced at its place in the file's order, so that no data moves."""

from __future__ import annotations

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import Order, Value
from edgekron.exporters.tflite.program import INTEGER, Tensor, type_name
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, axes_of

from .slicing import strided_slice

_CODES = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}


@translates(*_CODES)
def reduce_axes(call: Call) -> None:
    """The reduction of the same meaning in TFLite."""
    x, places, keep = _reduction(call)
    if places is None:
        call.result(x)
        return
    y = Formula(call).reduce(_CODES[call.node.op_type], x.tensor, places, keep=keep)
    call.finish(y, _order(x, places, keep))


@translates("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def reduce_by_a_sum(call: Call) -> None:
    """SUM of magnitudes, squares or exponentials; LogSumExp subtracts the maximum first, so that none overflows."""
    x, places, keep = _reduction(call)
    f, kind = Formula(call), call.node.op_type
    taken = places or []

    def total(values: Tensor) -> Tensor:
        return f.reduce("SUM", values, taken, keep=keep) if taken else values

    if kind == "ReduceL1":
        y = total(f("ABS", x.tensor))
    elif kind == "ReduceLogSum":
        y = f("LOG", total(x.tensor))
    elif kind == "ReduceLogSumExp":
        y = _log_sum_exp(f, x.tensor, taken, keep) if taken else x.tensor
    else:
        y = total(f("MUL", x.tensor, x.tensor))
        y = f("SQRT", y) if kind == "ReduceL2" else y
    call.finish(y, _order(x, taken, keep))


@translates("ArgMax", "ArgMin")
def arg_max(call: Call) -> None:
    """Indices along one axis, int32 in the file."""
    x = call.value()
    place, keep = x.axis(int(call.attribute("axis", 0))), bool(call.attribute("keepdims", 1))
    last, size = bool(call.attribute("select_last_index", 0)), x.tensor.shape[place]
    source = x.tensor
    if last:
        # TFLite takes the first of equal values: of the axis read backwards, the last.
        source = strided_slice(call.program, source, {place: (size - 1, -1, size)}, f"{call.name}/backwards")
    code = "ARG_MAX" if call.node.op_type == "ArgMax" else "ARG_MIN"
    left = [n for i, n in enumerate(x.tensor.shape) if i != place]
    inputs = [source, call.program.integers(f"{call.name}/axis", place)]
    y = call.program.emit(code, inputs, left, call.name, dtype=INTEGER, outputType=type_name(INTEGER))
    if last:
        y = call.program.emit("SUB", [call.program.integers(f"{call.name}/end", size - 1), y], left, call.name)
    if keep:
        y = call.program.reshape(y, (*left[:place], 1, *left[place:]), f"{call.name}/kept")
    call.finish(y, _order(x, [place], keep))


@translates("CumSum")
def cumulative_sum(call: Call) -> None:
    """CUMSUM along one axis, exclusive or backwards if the node says so."""
    x = call.value()
    place = x.axis(int(call.constant(1, "axis").reshape(())))
    inputs = [x.tensor, call.program.integers(f"{call.name}/axis", place)]
    exclusive, backwards = (bool(call.attribute(key, 0)) for key in ("exclusive", "reverse"))
    y = call.program.emit("CUMSUM", inputs, x.tensor.shape, call.name, exclusive=exclusive, reverse=backwards)
    call.finish(y, x.order)


def _reduction(call: Call) -> tuple[Value, list[int] | None, bool]:
    """The input, the places of the reduced axes (None for none), and whether they are kept with size one."""
    x = call.value()
    rank = len(x.order)
    axes = call.vector(1, "axes")
    keep = bool(call.attribute("keepdims", 1))
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return x, None, True
        axes = list(range(rank))
    return x, sorted(x.axis(a) for a in axes_of(axes, rank)), keep


def _order(x: Value, places: list[int], keep: bool) -> Order:
    if keep or not places:
        return x.order
    left = [a for i, a in enumerate(x.order) if i not in places]
    return tuple(sorted(left).index(a) for a in left)


def _log_sum_exp(f: Formula, x: Tensor, places: list[int], keep: bool) -> Tensor:
    greatest = f.reduce("REDUCE_MAX", x, places)
    total = f("LOG", f.reduce("SUM", f("EXP", f("SUB", x, greatest)), places, keep=keep))
    return f("ADD", total, f.view(greatest, total.shape))
