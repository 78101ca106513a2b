"""EDP's opening: blocks in place of layers' weights, and the groups whose channels can go without being missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgekron.graph import Layer
from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import OperatorModule
from edgekron.pruning import Group

from .entries import Entries, Places, operator_of, part_of
from .kernel import AwareLayer, Layout
from .measures import covariances, read_by


def open_blocks(module: GraphModule, layers: Sequence[Layer], images: Tensor) -> dict[str, AwareLayer]:
    """Puts blocks in place of the weights of all layers that can have one.

    A block of a layer has the principal components of the layer's outputs for ``images``.
    """
    found: dict[str, tuple[OperatorModule, Layout]] = {}
    for layer in layers:
        operator = operator_of(module, layer.name)
        if operator is None or layer.frozen_reason is not None or layer.groups > 1 or layer.geometry.transposed:
            continue
        if min(layer.kernel_shape[0], math.prod(layer.kernel_shape[1:])) < 2 or layer.node.op_type == "MatMul":
            continue
        rows = layer.node.attributes.get_int("transB", 0) == 1
        found[layer.name] = operator, "kernel" if layer.kind == "conv" else "rows" if rows else "columns"
    seen = covariances(module, {name: operator for name, (operator, _) in found.items()}, images)
    return {name: AwareLayer(operator, layout, seen[name]) for name, (operator, layout) in found.items()}


@torch.no_grad()
def silent_groups(
    module: GraphModule, groups: Sequence[Group], entries: Sequence[Entries], units: int, index: Places, images: Tensor
) -> list[Group]:
    """The groups whose channels arrive as zeros at all their readers when the ``entries`` that make them are zero.

    A sigmoid, say, makes something of nothing: the readers of its channels would miss them. ``units`` is the number of
    all channels.
    """
    kept = [each.tensor.clone() for each in entries]
    alive = torch.ones(units, device=images.device)
    for group in groups:
        alive[index(group.units)] = 0
    for each in entries:
        each.scale(alive[each.roots.to(images.device)])
    readers = {name: part_of(module, name) for group in groups for name in group.readers}
    read = read_by(module, readers, images)
    for each, tensor in zip(entries, kept, strict=True):
        each.tensor.copy_(tensor)
    return [group for group in groups if all(_reads_nothing(group, name, read) for name in group.readers)]


def _reads_nothing(group: Group, reader: str, read: Mapping[str, Tensor]) -> bool:
    mine = np.isin(group.readers[reader], group.units)
    return reader in read and not read[reader].cpu().numpy()[mine].any()
