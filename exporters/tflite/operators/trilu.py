"""Trilu: one triangle of the last two axes."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import arrange_constant
from edgekron.exporters.tflite.program import BOOLEAN
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call


@translates("Trilu")
def trilu(call: Call) -> None:
    """The values on a diagonal and on one side of it, zero on the other: SELECT_V2 by a constant."""
    x, f = call.value(kinds=ANY), Formula(call)
    diagonal = int(call.constant(1, "diagonal").reshape(())) if call.has(1) else 0
    rows, columns = x.shape[-2:]
    diagonal = max(-rows, min(diagonal, columns))
    upper = bool(call.attribute("upper", 1))
    kept = ~np.tri(rows, columns, diagonal - 1, bool) if upper else np.tri(rows, columns, diagonal, bool)
    chosen = call.program.constant(f"{call.name}/kept", arrange_constant(kept, x.order))
    zero = call.program.constant(f"{call.name}/zero", np.zeros(1, x.tensor.dtype))
    if x.tensor.dtype == BOOLEAN:
        call.finish(f("LOGICAL_AND", x.tensor, chosen), x.order)
        return
    call.finish(f("SELECT_V2", chosen, x.tensor, zero, dtype=x.tensor.dtype), x.order)
