"""Gradual schedules: several rounds of compression and training, each a little tighter, the last by the plan itself.

A network recovers more easily from many small cuts than from one (Gusak et al., "MUSCO: Multi-stage compression of
neural networks", ICCVW 2019). Round i of n gives a layer with the plan's ranks r the ranks

    min(full, round(r * GROWTH ** (n - i)))

so ranks fall by the same factor from round to round. Between rounds the trained factors are multiplied out, and the
dense network that they make is compressed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekron.compression.compressor import apply_plan
from edgekron.graph import Hub
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.structures import FAMILIES, TensorRing

#: How much larger ranks are than those of the next round.
GROWTH = 1.5


def plan_of_round(plan: CompressionPlan, number: int, rounds: int) -> CompressionPlan:
    """The plan with the ranks of round ``number`` of ``rounds``, 1 to ``rounds``."""
    layers = {name: _relaxed(line, GROWTH ** (rounds - number)) for name, line in plan.layers.items()}
    return replace(plan, layers=layers)


def compress_again(hub: Hub, plan: CompressionPlan, data: Sequence[np.ndarray]) -> Hub:
    """``hub``, compressed or not, with its factors multiplied out and factorized again by ``plan``.

    The new factors are fitted to ``data``, batches float32 [n, C, H, W], or to the weights where there are none.
    """
    return apply_plan(hub.dense(), plan, data=data).hub


def _relaxed(line: LayerPlan, growth: float) -> LayerPlan:
    if line.method == "dense":
        return line
    structure = FAMILIES[line.method].parse(line.shape)
    wanted = tuple(max(rank, round(rank * growth)) for rank in line.ranks)
    if not isinstance(structure, TensorRing):
        wanted = tuple(max(rank, min(w, m)) for rank, w, m in zip(line.ranks, wanted, structure.max_ranks, strict=True))
    return replace(line, ranks=wanted)
