"""The version that each operator must state in the file.

A runtime refuses operators of a version newer than the runtime. So each operator states the lowest version that covers
the operator's features, for float32 (source: the version rules of the TFLite schema's builtin operators).
"""

from __future__ import annotations

from .program import Operator

#: Operators whose first version was never a builtin one.
_ONLY = {"BROADCAST_TO": 2}


def version(operator: Operator) -> int:
    """The lowest version of the operator that has every feature used."""
    ranks = [len(t.shape) for t in operator.inputs]
    broadcast = len(operator.inputs) > 1 and operator.inputs[0].shape != operator.inputs[1].shape
    match operator.code:
        case "CONV_2D":
            if operator.inputs[0].shape[-1] != operator.inputs[1].shape[-1]:
                return 6  # grouped
            return 2 if _dilated(operator) else 1
        case "DEPTHWISE_CONV_2D":
            return 2 if _dilated(operator) else 1
        case "FULLY_CONNECTED":
            return 5 if operator.options.get("keepNumDims") else 1
        case "TRANSPOSE":
            return 6 if ranks[0] > 5 else 4 if ranks[0] > 4 else 1
        case "PAD" | "PADV2" | "STRIDED_SLICE":
            return 4 if ranks[0] > 4 else 1
        case "RESIZE_BILINEAR" | "RESIZE_NEAREST_NEIGHBOR":
            return 3 if operator.options.get("halfPixelCenters") else 1
        case "SUB" | "MAXIMUM" | "MINIMUM":
            return 3 if broadcast and max(ranks) > 4 else 1
        case "DIV":
            return 2 if broadcast and max(ranks) > 4 else 1
        case _:
            return _ONLY.get(operator.code, 1)


def _dilated(operator: Operator) -> bool:
    return operator.options.get("dilationHFactor", 1) != 1 or operator.options.get("dilationWFactor", 1) != 1
