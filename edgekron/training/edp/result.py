"""EDP's pruning and merging: from the trained module to a compressed folder.

Channels that are dead go, with all that depends on them. A block stays a pair, which is the structure ``channel-svd``,
only where the pair has fewer MACs than the one layer that it multiplies out to; ``edgekron tune`` judges by time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgekron.algebra.lowering import default_forms
from edgekron.compression.compressor import Compression
from edgekron.compression.report import CompressionReport, LayerReport, dense_row, with_pruning
from edgekron.graph import Factorized, Hub, Layer
from edgekron.graph.cost import cost
from edgekron.graph.factorized import TARGETS
from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import array
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.pruning import LEARNT, ChannelStructure, Pruning, pruned_plan, remove
from edgekron.structures import KroneckerShape

from .aware import CompressedAware
from .blocks import LowRankBlock, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What plans and reports call the pair of a block.
PAIR = "channel-svd"


def finished(original: Hub, module: GraphModule, aware: CompressedAware, model: str) -> Compression:
    """The network that ``aware`` has made of ``module``, pruned and merged; ``original`` is the hub it began with."""
    aware.silence()
    trained, dead = module.to_hub(), aware.dead()
    hub = remove(trained, {name: places for name, places in dead.items() if places})
    structure = ChannelStructure(trained)
    units = {group.name: group.units for group in structure.groups}
    gone = {int(units[name][place]) for name, places in dead.items() for place in places}
    lines: dict[str, LayerPlan] = {}
    for layer in hub.layers():
        lines[layer.name] = LayerPlan(reason="one layer is cheaper than a pair")
        if layer.name not in aware.layers:
            lines[layer.name] = LayerPlan(reason=layer.frozen_reason or "it is transposed, in groups, or too small")
            continue
        pair = merged(_left(aware.block(layer.name), structure, layer.name, gone))
        if isinstance(pair, LowRankBlock):
            lines[layer.name] = _factorize(hub, layer, pair)
    kept = {name: (len(units[name]) - len(places), LEARNT) for name, places in dead.items() if places}
    pruning = Pruning(hub, kept)
    plan = pruned_plan(original, pruning, model, CompressionPlan(model, lines))
    report = CompressionReport(_rows(original, hub, plan, pruning), 0, identity=hub.identity.digest)
    return Compression(hub, plan, report)


def _left(block: LowRankBlock, structure: ChannelStructure, name: str, gone: set[int]) -> LowRankBlock:
    """The block without the inputs and outputs that are gone."""
    inputs, outputs = structure.channels.layers[name]
    basis, coefficients = block.basis, block.coefficients
    if inputs is not None:
        basis = basis[:, structure.alive(inputs, gone)]
    if outputs is not None:
        coefficients = coefficients[structure.alive(outputs, gone)]
    return LowRankBlock(basis, coefficients)


def _factorize(hub: Hub, layer: Layer, pair: LowRankBlock) -> LayerPlan:
    """Puts a pair in place of a layer; gives its line."""
    f, c, h, w = layer.kernel_shape
    rank = len(pair.basis)
    shape = KroneckerShape((f, 1), (1, c), (1, h), (1, w))
    network = shape.network(rank)
    sides = (array(pair.coefficients.mT), array(pair.basis))
    tensors = tuple(np.reshape(side, network.factor_shape(i)) for i, side in enumerate(sides))
    order = network.best_order(layer.input_size, layer.geometry)
    factorized = Factorized(layer.name, layer.kind, network, tensors, layer.bias, order, layer.geometry)
    hub.factorize(layer.name, factorized)
    stages = network.stages(order, layer.geometry)
    forms = {target: default_forms(stages, target) for target in TARGETS}
    return LayerPlan(PAIR, str(shape), (rank,), order, forms, shape.note)


def _rows(original: Hub, hub: Hub, plan: CompressionPlan, pruning: Pruning) -> dict[str, LayerReport]:
    before: Mapping[str, Layer] = {layer.name: layer for layer in original.layers()}
    after = {layer.name: layer for layer in hub.layers()}
    dense = {name: dense_row(layer, plan.layers[name].reason) for name, layer in before.items()}
    rows = with_pruning(dense, before, after, pruning)
    for name, line in plan.layers.items():
        if line.method != "dense":
            rows[name] = replace(
                rows[name],
                method=line.method,
                shape=line.shape,
                rank=line.ranks,
                reason=line.reason,
                compressed=cost(after[name]),
            )
    return rows
