"""ScatterND, ScatterElements and MaxUnpool.

If the indices are constant, it is known at export which values of the result are the input's and which are updates:
the result is a GATHER of both. Computed indices need SCATTER_ND, which writes into zeros. For an index that is given
twice, of which ONNX leaves the result open, SCATTER_ND adds.
"""

from __future__ import annotations

import math

import numpy as np

from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.program import BOOLEAN, Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call

from .gather import take, within


@translates("ScatterND")
def scatter_nd(call: Call) -> None:
    """The input with the slices at tuples of indices replaced; if the indices are computed, the input must be zero."""
    _refuse_reduction(call)
    rank, indices = call.rank(), call.array(1)
    if indices is None:
        _into_zeros(call)
        return
    x, updates = call.value(0, tuple(range(rank)), ANY), call.value(2, tuple(range(call.rank(2))), ANY)
    depth = indices.shape[-1]
    columns = [within(call, indices[..., i], x.shape[i]) for i in range(depth)]
    flat = np.ravel_multi_index(columns, x.shape[:depth]).ravel()
    y = _replaced(call, x.tensor, updates.tensor, flat, x.shape[depth:])
    call.finish(call.program.reshape(y, x.shape, call.name), x.order)


@translates("ScatterElements")
def scatter_elements(call: Call) -> None:
    """The input with one value replaced for each index: at the index along one axis, at its own place along others."""
    _refuse_reduction(call)
    indices, rank = call.constant(1, "indices"), call.rank()
    order = tuple(range(rank))
    x, updates = call.value(0, order, ANY), call.value(2, order, ANY)
    axis = int(call.attribute("axis", 0)) % rank
    places: list[np.ndarray] = list(np.indices(indices.shape))
    places[axis] = within(call, indices, x.shape[axis])
    y = _replaced(call, x.tensor, updates.tensor, np.ravel_multi_index(places, x.shape).ravel(), ())
    call.finish(call.program.reshape(y, x.shape, call.name), order)


@translates("MaxUnpool")
def max_unpool(call: Call) -> None:
    """Zeros, with each value at its index, which is the place from which MaxPool took the value."""
    window = [int(k) for k in call.attribute("kernel_shape")]
    if len(window) != 2 or call.rank() != 4:
        call.refuse(f"a {len(window)}-D unpooling is not supported", "use 2-D pools")
    strides = call.attribute("strides") or (1, 1)
    pads = call.attribute("pads") or (0, 0, 0, 0)
    x = call.value(0, NHWC)
    sizes = [
        (n - 1) * int(s) + k - int(before) - int(after)
        for n, s, k, before, after in zip(x.shape[2:], strides, window, pads[:2], pads[2:], strict=True)
    ]
    shape = (*x.shape[:2], *sizes)
    given = call.vector(2, "output shape", "output_shape")
    if given is not None and tuple(given) != shape:
        call.refuse(f"its output {given} is not the {list(shape)} that was pooled", "leave the output shape out")
    total, count = math.prod(shape), x.tensor.shape
    indices = call.array(1)
    if indices is None:
        # The order of the values does not matter, so that the values and their indices stay in the file's order.
        at = call.program.reshape(call.value(1, NHWC, ANY).tensor, (math.prod(count), 1), f"{call.name}/at")
        updates = call.program.reshape(x.tensor, (math.prod(count),), f"{call.name}/values")
        y = _scattered(call, at, updates, (total,))
    else:
        zero = call.program.constant(f"{call.name}/zero", np.zeros(total, np.float32))
        flat = within(call, indices, total).ravel()
        y = _replaced(call, zero, call.value(0, (0, 1, 2, 3)).tensor, flat, ())
    call.finish(call.program.reshape(y, shape, call.name), (0, 1, 2, 3))


def _refuse_reduction(call: Call) -> None:
    if call.attribute("reduction", "none") != "none":
        call.refuse("it reduces what it scatters", "use reduction=none")


def _replaced(call: Call, x: Tensor, updates: Tensor, flat: np.ndarray, rest: tuple[int, ...]) -> Tensor:
    """Slices of shape ``rest`` of ``x``, those at ``flat`` replaced by ``updates``: [slices, *rest]."""
    slices = math.prod(x.shape) // math.prod(rest)
    parts = [
        call.program.reshape(x, (slices, *rest), f"{call.name}/input"),
        call.program.reshape(updates, (flat.size, *rest), f"{call.name}/updates"),
    ]
    both = call.program.emit("CONCATENATION", parts, (slices + flat.size, *rest), f"{call.name}/both", axis=0)
    places = np.arange(slices)
    # Of equal indices the last one counts.
    places[flat] = slices + np.arange(flat.size)
    return take(call.program, both, 0, places, call.name, f"{call.name}/places")


def _into_zeros(call: Call) -> None:
    """ScatterND with computed indices."""
    zeros = call.array(0)
    if zeros is None or zeros.any():
        call.refuse("its indices are computed while the network runs, and its input is not zero", "scatter into zeros")
    indices, updates = (call.value(i, tuple(range(call.rank(i))), ANY).tensor for i in (1, 2))
    if indices.dtype.kind != "i":
        call.refuse(f"its indices are {indices.dtype}", "use integers")
    # Those below zero count from the end.
    sizes = call.program.integers(f"{call.name}/sizes", zeros.shape[: indices.shape[-1]])
    zero = call.program.integers(f"{call.name}/zero", [0])
    below = call.program.emit("LESS", [indices, zero], indices.shape, f"{call.name}/below", dtype=BOOLEAN)
    ahead = call.program.emit("ADD", [indices, sizes], indices.shape, f"{call.name}/ahead")
    at = call.program.emit("SELECT_V2", [below, ahead, indices], indices.shape, f"{call.name}/at", dtype=indices.dtype)
    call.finish(_scattered(call, at, updates, zeros.shape), tuple(range(zeros.ndim)))


def _scattered(call: Call, indices: Tensor, updates: Tensor, shape: tuple[int, ...]) -> Tensor:
    inputs = [indices, updates, call.program.integers(f"{call.name}/shape", shape)]
    return call.program.emit("SCATTER_ND", inputs, shape, call.name, dtype=updates.dtype)
