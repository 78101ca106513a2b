"""Outputs that are joined from several values, such as boxes in pixels and scores from 0 to 1, in integer files.

One range for a joined output would leave of its small parts a step or two: all scores of a detector become one number.
So the moves that join an output (``edgekron.graph.joins``) stay float, and each part keeps the range of its own that
it has as a value within the network. Where the outputs themselves are to be integers, a join has one range after all,
and is refused where the range leaves a part less than ``LEAST_STEPS`` steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.joins import joining_moves
from edgekron.graph.parts import joined_outputs

from .ranges import AT_ONCE, plain_session
from .types import pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import onnx

    from edgekron.graph import Hub

#: The fewest of 255 integer steps that a part of an integer output may span.
LEAST_STEPS = 16


def name_joining_nodes(proto: onnx.ModelProto) -> list[str]:
    """The names of the nodes that join outputs; a node without a name gets one, in place."""
    graph = ir.serde.deserialize_model(proto).graph
    made = {str(value.name) for move in joining_moves(graph) for value in move.outputs}
    found = [node for node in proto.graph.node if not made.isdisjoint(node.output)]
    for node in found:
        node.name = node.name or f"{node.output[0]}/{node.op_type}"
    return [node.name for node in found]


def refuse_integer_joins(hub: Hub, images: Sequence[np.ndarray]) -> None:
    """Refuses an integer output of which a part would span too few steps on the calibration ``images``."""
    for output, ranges in _ranges(hub, images).items():
        low, high = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
        for name, (least, most) in ranges.items():
            if 0 < 255 * (most - least) < LEAST_STEPS * (high - low):
                raise UserError(
                    f"output {output} joins values of different range: {name} is from {least:.3g} to {most:.3g}, all "
                    f"together from {low:.3g} to {high:.3g}, and integers of one scale would lose {name}; leave the "
                    "outputs float."
                )


def _ranges(hub: Hub, images: Sequence[np.ndarray]) -> dict[str, dict[str, tuple[float, float]]]:
    """(smallest, largest) value of each part, by joined output and the part's title."""
    joined = joined_outputs(hub.model.graph)
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in joined}
    if not joined:
        return found
    session = plain_session(hub, list(joined))
    for x in pieces(images, AT_ONCE, exactly=False):
        for output, value in zip(joined.values(), session.run(list(joined), {hub.input_name: x}), strict=True):
            rows = output.images(value)
            if rows is None:
                continue
            for part in output.parts:
                low, high = found[output.name].get(part.title, (math.inf, -math.inf))
                own = rows[:, part.places]
                found[output.name][part.title] = (min(low, float(own.min())), max(high, float(own.max())))
    return {output: ranges for output, ranges in found.items() if ranges}
