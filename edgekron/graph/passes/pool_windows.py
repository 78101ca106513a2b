"""Rewrites pools that round their size up and drop a window behind the input as pools that round down.

With n pixels, padding (b, e), a window that spans k and stride s, rounding up gives

    m = ceil((n + b + e - k) / s) + 1

windows, and one fewer if the last window would start behind the input: (m - 1) s >= n + b. Torch and every runtime
follow the last rule, but ONNX's own shape inference does so only from operator set 22 on. Older versions find one pixel
too many, and constants computed from that size are wrong. A pool that rounds down has the right size in every version,
with the padding at the end that the last window needs:

    e' = max((m - 1) s + k - n - b, e)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.errors import UserError

from .infer_shapes import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator


def count_pool_windows(model: ir.Model) -> None:
    """Rewrites every AveragePool and MaxPool that drops a window, if the size of the input is known.

    Raises ``UserError`` for an AveragePool that counts its padding, drops a window along one axis, and reaches behind
    its padding along another: pixels behind the padding do not count, and rounding down would count them.
    """
    pools = [node for node in model.graph if _rounds_up(node)]
    if pools:
        infer_shapes(model)
    for node in pools:
        axes = list(_axes(node))
        if not any(windows < up for windows, up, _, _ in axes):
            continue
        behind = any(wanted > given for _, _, wanted, given in axes)
        counts_padding = node.attributes.get_int("count_include_pad", 0) == 1
        if node.op_type == "AveragePool" and counts_padding and behind:
            raise UserError(
                f"node {node.name} (AveragePool) rounds its size up, but not along every axis, and counts its padding; "
                "export it with ceil_mode=False or count_include_pad=False."
            )
        ends = [max(wanted, given) for _, _, wanted, given in axes]
        starts = list(node.attributes.get_ints("pads", (0,) * (2 * len(axes))))[: len(axes)]
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
        node.attributes["pads"] = ir.AttrInt64s("pads", [*starts, *ends])
        # Pools behind this one see another size now.
        infer_shapes(model)


def _rounds_up(node: ir.Node) -> bool:
    return (
        node.op_type in ("AveragePool", "MaxPool")
        and not node.domain
        and node.attributes.get_int("ceil_mode", 0) == 1
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _axes(node: ir.Node) -> Iterator[tuple[int, int, int, int]]:
    """(windows, windows before one is dropped, padding needed at the end, padding given) of each axis of known size."""
    x = node.inputs[0]
    window = node.attributes.get_ints("kernel_shape", ())
    sizes = list(x.shape)[2:] if x is not None and x.shape is not None else []
    if len(sizes) != len(window) or not all(isinstance(n, int) for n in sizes):
        return
    ones = (1,) * len(window)
    pads = node.attributes.get_ints("pads", (0,) * (2 * len(window)))
    strides, dilations = node.attributes.get_ints("strides", ones), node.attributes.get_ints("dilations", ones)
    for n, k, s, d, begin, end in zip(
        sizes, window, strides, dilations, pads[: len(window)], pads[len(window) :], strict=True
    ):
        span = d * (k - 1) + 1
        up = -(-(n + begin + end - span) // s) + 1
        windows = up - 1 if (up - 1) * s >= n + begin else up
        yield windows, up, (windows - 1) * s + span - n - begin, end
