"""The candidates for a factorized layer that are worth measuring: contraction orders with a form for each stage.

Every pair of an order and valid forms is exact, and there are up to thousands of pairs. They are ranked by a rough cost
in multiply-accumulates of the steps that ``edgekron.algebra.lowering`` gives for a pair,

    sum over convolutions and products of  MACs / fill + TOUCH * output values   +   over shuffles of  MOVE * values

where ``fill`` is the share of a vector register that the outputs of one group fill. Only the pairs of least cost are
measured, and the choice among these is made by the measured times alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekron.algebra import dense_macs
from edgekron.algebra.lowering import default_forms, lower, valid_forms
from edgekron.algebra.steps import Conv, ConvTranspose, MatMul, Shuffle, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgekron.algebra import Pair, Stage

    from .subject import Subject

#: How many candidates are measured at most.
LIMIT = 10
#: Orders with more MACs than this many times the fewest MACs are not tried.
_COSTLIER = 1.5
_ORDERS = 4
#: More combinations of forms than this are not enumerated one by one.
_ENUMERATED = 64
#: Output channels of a group that fill a register: ONNX Runtime's blocks, XNNPACK's tiles.
FILL = {"onnx": 16, "tflite": 32}
_TOUCH, _MOVE = 10, 50


@dataclass(frozen=True)
class FormCandidate:
    """A contraction order and a form for each of its stages."""

    order: tuple[int, ...]
    forms: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join(self.forms)


def candidates(subject: Subject, target: str) -> list[FormCandidate]:
    """At most ``LIMIT`` different candidates for ``target`` ("onnx" or "tflite"), the layer's present forms first."""
    stages = subject.network.stages(subject.order, subject.geometry)
    defaults = default_forms(stages, target)
    present = FormCandidate(subject.order, tuple(subject.forms.get(target, defaults)))
    found: dict[tuple[Step, ...], FormCandidate] = {}
    for one in (present, FormCandidate(subject.order, defaults)):
        found.setdefault(_steps(subject, one), one)
    fixed = len(found)
    for order in _orders(subject):
        for forms in _forms(subject.network.stages(order, subject.geometry), target):
            one = FormCandidate(order, forms)
            found.setdefault(_steps(subject, one), one)
    ranked = sorted(list(found)[fixed:], key=lambda steps: _estimate(steps, subject, target))
    return [found[steps] for steps in [*list(found)[:fixed], *ranked][:LIMIT]]


def _orders(subject: Subject) -> list[tuple[int, ...]]:
    """The orders with the fewest MACs, none with more than the dense layer."""
    network, size = subject.network, subject.size
    dense = dense_macs(network.kernel_shape, size, subject.geometry)
    costs = {order: network.macs(order, size, subject.geometry) for order in network.orders()}
    most = min(dense, _COSTLIER * min(costs.values()))
    return sorted((order for order in costs if costs[order] <= most), key=costs.__getitem__)[:_ORDERS]


def _forms(stages: Sequence[Stage], target: str) -> Iterator[tuple[str, ...]]:
    """All combinations of forms; of too many, those in which stages have the same form as far as possible."""
    valid = [valid_forms(stage, target) for stage in stages]
    if math.prod(map(len, valid)) <= _ENUMERATED:
        yield from itertools.product(*valid)
        return
    names = sorted({form for forms in valid for form in forms})
    for wishes in itertools.permutations(names):
        yield tuple(min(forms, key=wishes.index) for forms in valid)


def _steps(subject: Subject, candidate: FormCandidate) -> tuple[Step, ...]:
    return lower(subject.network, candidate.order, subject.geometry, candidate.forms, bias=subject.bias)


def _estimate(steps: Sequence[Step], subject: Subject, target: str) -> float:
    size: Pair = subject.size
    total = 0.0
    for step in steps:
        match step:
            case Conv() | ConvTranspose():
                outputs = step.weight.shape[0] if isinstance(step, Conv) else step.outputs
                fill = min(1.0, outputs / step.groups / FILL[target])
                total += step.macs(size) / fill
                size = step.geometry.output_size(size, (step.weight.shape[2], step.weight.shape[3]))
                total += _TOUCH * math.prod(size) * outputs * step.fold
            case MatMul():
                total += step.macs(size) + _TOUCH * math.prod(size) * step.trailing * step.weight.shape[0]
            case Shuffle():
                total += _MOVE * math.prod(size) * math.prod(step.shape)
            case _:
                pass
    return total
