"""From blocks to the estimate that a limit is judged by.

Latencies and their ratios: one number a block, then ``edgekron.runtimes.ranks`` over the blocks, in logarithms.
Memory and instructions repeat so closely that the interval is simply from the smallest to the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgekron.runtimes.ranks import FEWEST, pseudomedian, shift
from edgekron.runtimes.statistics import Interval

from .baseline import BaselineEntry
from .blocks import MeasuredBlock, Run

#: An interval that is looked at again and again until it is narrow misses the truth more often than one looked at once:
#: intervals of the first level, the highest that ``FEWEST`` blocks allow, keep the second one over all looks.
_ONE_LOOK = 1 - 2 ** (1 - FEWEST)
_SAID = 0.95


class UnknownError(Exception):
    """The blocks do not hold what the estimate needs; the message is the reason in a few words."""


def estimate(key: str, blocks: Sequence[MeasuredBlock], entry: BaselineEntry | None) -> Interval:
    """The estimate for a kind of limit from at least one block; for latencies from ``ranks.FEWEST`` on.

    The first run of a block is the model's, the last one the reference's. ``entry`` is the baseline's. Raises
    ``UnknownError`` where the device did not tell, and ``ValueError`` for too few blocks.
    """
    runs = [block.runs[0] for block in blocks]
    match key:
        case "latency_median":
            return _centre([math.log(run.median) for run in runs])
        case "latency_p95":
            return _centre([math.log(run.p95) for run in runs])
        case "latency_vs_reference":
            return _centre([block.log_ratio for block in blocks])
        case "latency_vs_baseline":
            before = _known(entry.latency if entry else None, "the baseline has no latency of it")
            return _exp(shift([math.log(run.median) for run in runs], [math.log(value) for value in before], _ONE_LOOK))
        case "instructions":
            return _range(_values(runs, _instructions, "the device counted no instructions"))
        case "instructions_vs_reference":
            ours = _values(runs, _instructions, "the device counted no instructions")
            others = _values([block.runs[-1] for block in blocks], _instructions, "the device counted no instructions")
            return _range([x / y for x, y in zip(ours, others, strict=True)])
        case "instructions_vs_baseline":
            before = _known(entry.instructions if entry else None, "the baseline has no instructions of it")
            ours = _values(runs, _instructions, "the device counted no instructions")
            return _range([x / y for x in ours for y in before])
        case "arena" | "arena_micro":
            return _range(_values(runs, lambda run: run.arena.get(key), "the runtime does not tell its arena"))
        case "not_delegated":
            return _range(_values(runs, lambda run: run.not_delegated, "the runtime does not tell what it delegates"))
        case _:
            name = key.removeprefix("memory_")
            return _range(_values(runs, lambda run: run.memory[name], "the device does not tell its memory"))


def _centre(logarithms: Sequence[float]) -> Interval:
    return _exp(pseudomedian(logarithms, _ONE_LOOK))


def _exp(interval: Interval) -> Interval:
    return Interval(math.exp(interval.value), math.exp(interval.low), math.exp(interval.high), _SAID)


def _range(values: Sequence[float]) -> Interval:
    return Interval(float(np.median(values)), min(values), max(values), 1.0)


def _instructions(run: Run) -> float | None:
    return run.instructions


def _values(runs: Sequence[Run], value: Callable[[Run], float | None], reason: str) -> list[float]:
    found = [value(run) for run in runs]
    known = [float(number) for number in found if number is not None]
    if len(known) < len(found):
        raise UnknownError(reason)
    return known


def _known(values: Sequence[float] | None, reason: str) -> Sequence[float]:
    if not values:
        raise UnknownError(reason)
    return values
