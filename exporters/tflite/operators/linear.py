"""Gemm and MatMul: FULLY_CONNECTED on the last axis if one factor is a constant matrix, else BATCH_MATMUL."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.program import Program, Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("Gemm")
def gemm(call: Call) -> None:
    """Alpha * A @ B + beta * C with a constant B."""
    alpha, beta = (np.float32(call.attribute(key, 1.0)) for key in ("alpha", "beta"))
    b = call.numbers(1, "second matrix")
    weight = alpha * (b if call.attribute("transB", 0) else b.T)
    x = call.value(0, (1, 0) if call.attribute("transA", 0) else (0, 1)).tensor
    bias, added = None, None
    if call.has(2):
        c = beta * call.numbers(2, "third matrix")
        if c.size == c.shape[-1:].count(weight.shape[0]) * weight.shape[0]:
            bias = c.reshape(-1)
        else:
            added = c
    y = fully_connected(call.program, x, weight, bias, call.name, call.input_name(1))
    if added is not None:
        y = call.program.emit("ADD", [y, call.program.constant(f"{call.name}/c", added)], y.shape, f"{call.name}/sum")
    call.finish(y, (0, 1))


@translates("MatMul")
def matmul(call: Call) -> None:
    """X @ W, or W @ X, with a constant matrix W; else a product of matrices by matrices, batch axes broadcast."""
    constants = [call.array(0), call.array(1)]
    side = 0 if constants[1] is not None else 1
    matrix = constants[1 - side]
    if matrix is None or matrix.ndim != 2 or call.rank(side) < 2:
        _batched(call)
        return
    matrix = call.numbers(1 - side, "matrix")
    rank = call.rank(side)
    # W @ X is X with the last two axes swapped, times W transposed, and swapped back: swapping costs nothing here.
    order = (*range(rank - 2), rank - 2, rank - 1) if side == 0 else (*range(rank - 2), rank - 1, rank - 2)
    x = call.value(side, order)
    weight = matrix.T if side == 0 else matrix
    name = call.input_name(1 - side)
    y = fully_connected(call.program, x.tensor, weight, None, call.name, name)
    call.result(Value(y, order))


def _batched(call: Call) -> None:
    """BATCH_MATMUL; a vector is a matrix of one row on the left, of one column on the right."""
    ranks = [call.rank(0), call.rank(1)]
    left, right = (call.value(i, tuple(range(rank))) for i, rank in enumerate(ranks))
    if ranks[0] == 1:
        left = reshape(call.program, left, (1, *left.shape), f"{call.name}/row")
    if ranks[1] == 1:
        right = reshape(call.program, right, (*right.shape, 1), f"{call.name}/column")
    y = Value(batch_matmul(call, left.tensor, right.tensor), tuple(range(max(2, *ranks))))
    shape = list(y.shape)
    if ranks[1] == 1:
        del shape[-1]
    if ranks[0] == 1:
        del shape[-2 if ranks[1] > 1 else -1]
    call.result(reshape(call.program, y, shape, call.name))


def batch_matmul(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """[..., m, k] times [..., k, n]: [..., m, n]."""
    if max(len(left.shape), len(right.shape)) > 5:
        call.refuse("it multiplies tensors of more than five axes", "write it with fewer axes")
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    shape = (*batch, left.shape[-2], right.shape[-1])
    return call.program.emit("BATCH_MATMUL", [left, right], shape, call.name)


def fully_connected(
    program: Program, x: Tensor, weight: np.ndarray, bias: np.ndarray | None, name: str, weight_name: str
) -> Tensor:
    """``x`` [..., C] times ``weight`` [F, C] transposed, plus ``bias`` [F]: [..., F]."""
    features = weight.shape[0]
    vector = np.zeros(features, np.float32) if bias is None else bias.astype(np.float32)
    inputs = [x, program.constant(weight_name, weight.astype(np.float32)), program.constant(f"{name}/bias", vector)]
    return program.emit("FULLY_CONNECTED", inputs, (*x.shape[:-1], features), name, keepNumDims=len(x.shape) != 2)
