"""Replaces a Reshape, a Transpose of six axes and a Reshape by the one operator that they are: SpaceToDepth.

    [N, C, h b, w b]  ->  [N, C, h, b, w, b]  ->  [N, b, b, C, h, w]  ->  [N, b b C, h, w]

Runtimes have this operator, while most move no more than five axes. With the channels in front of the block,
[N, C, b, b, h, w] (torch's ``pixel_unshuffle``), the chain is the same operator and a transpose of five axes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer, replace_node
from edgekron.graph.values import sizes_behind_batch

_BLOCK_FIRST, _CHANNELS_FIRST = [0, 3, 5, 1, 2, 4], [0, 1, 3, 5, 2, 4]


def space_to_depth(model: ir.Model) -> None:
    """Replaces every such chain whose inner values nothing else uses. Needs inferred shapes."""
    for last in list(model.graph):
        if last.op_type != "Reshape" or last.domain:
            continue
        transpose = _only_producer(last, "Transpose")
        first = _only_producer(transpose, "Reshape") if transpose is not None else None
        if transpose is None or first is None:
            continue
        order = list(transpose.attributes.get_ints("perm", ()))
        source, split, target = map(sizes_behind_batch, (first.inputs[0], first.outputs[0], last.outputs[0]))
        if source is None or split is None or target is None:
            continue
        if order in (_BLOCK_FIRST, _CHANNELS_FIRST) and _is_block(source, split, target):
            _replace(model.graph, first, last, split, blocks_first=order == _BLOCK_FIRST)


def _is_block(source: list[int], split: list[int], target: list[int]) -> bool:
    """Whether [C, h b, w b] is split into [C, h, b, w, b] and joined to [C b b, h, w]; sizes without the batch."""
    if len(source) != 3 or len(split) != 5:
        return False
    c, h, b, w, across = split
    return b == across and source == [c, h * b, w * b] and target == [c * b * b, h, w]


def _replace(graph: ir.Graph, first: ir.Node, last: ir.Node, split: list[int], *, blocks_first: bool) -> None:
    c, h, b, w, _ = split
    name = str(last.outputs[0].name)
    nodes = [ir.Node("", "SpaceToDepth", [first.inputs[0]], [ir.AttrInt64("blocksize", b)], name=f"{name}.blocks")]
    if not blocks_first:
        wide = add_initializer(graph, f"{name}.blocks.shape", np.array([0, b * b, c, h, w], dtype=np.int64))
        flat = add_initializer(graph, f"{name}.shape", np.array([0, c * b * b, h, w], dtype=np.int64))
        nodes.append(ir.Node("", "Reshape", [nodes[-1].outputs[0], wide], name=f"{name}.wide"))
        order = ir.AttrInt64s("perm", [0, 2, 1, 3, 4])
        nodes.append(ir.Node("", "Transpose", [nodes[-1].outputs[0]], [order], name=f"{name}.swapped"))
        nodes.append(ir.Node("", "Reshape", [nodes[-1].outputs[0], flat], name=f"{name}.flat"))
    for node in nodes[:-1]:
        node.outputs[0].name = str(node.name)
    replace_node(last, nodes)


def _only_producer(node: ir.Node, operator: str) -> ir.Node | None:
    """The node of a type whose only use is the first input of ``node``."""
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    if value is None or before is None or before.op_type != operator or before.domain:
        return None
    return before if len(value.uses()) == 1 and not value.is_graph_output() else None
