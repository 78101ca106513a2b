"""Turns ``auto_pad`` of convolutions and poolings into explicit pads.

    SAME_UPPER, SAME_LOWER   total = max((ceil(n / stride) - 1) * stride + dilation * (k - 1) + 1 - n, 0)
    VALID                    no padding

The total is split in two; an odd pixel goes to the end (UPPER) or to the beginning (LOWER).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOWED = {"Conv", "MaxPool", "AveragePool", "LpPool"}


def make_padding_explicit(model: ir.Model) -> None:
    """Sets ``pads`` wherever the input's size is known; other nodes keep their ``auto_pad``.

    Raises ``UserError`` for negative pads, which the standard allows and no runtime does.
    """
    for node in model.graph:
        if any(pad < 0 for pad in node.attributes.get_ints("pads", ())):
            raise UserError(f"node {node.name} ({node.op_type}) has negative pads, which runtimes refuse; use a Slice.")
        mode = node.attributes.get_string("auto_pad", "NOTSET")
        if node.op_type not in _WINDOWED or node.domain or mode == "NOTSET":
            continue
        window = _window(node)
        if window is None:
            continue
        pads = [0] * (2 * len(window)) if mode == "VALID" else _same(node, window, upper=mode == "SAME_UPPER")
        if pads is not None:
            node.attributes.pop("auto_pad")
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)


def _window(node: ir.Node) -> list[int] | None:
    if "kernel_shape" in node.attributes:
        return list(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None:
        return None
    dims = [d for d in list(weight.shape)[2:] if isinstance(d, int)]
    return dims if len(dims) == len(weight.shape) - 2 else None


def _same(node: ir.Node, window: Sequence[int], *, upper: bool) -> list[int] | None:
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    ones = [1] * len(window)
    strides = node.attributes.get_ints("strides", ones)
    dilations = node.attributes.get_ints("dilations", ones)
    before, after = [], []
    for n, k, stride, dilation in zip(list(x.shape)[2:], window, strides, dilations, strict=True):
        if stride == 1:
            # The same for every n, an open one too.
            total = dilation * (k - 1)
        elif isinstance(n, int):
            total = max((-(-n // stride) - 1) * stride + dilation * (k - 1) + 1 - n, 0)
        else:
            return None
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return [*before, *after]
