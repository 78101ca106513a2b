"""How many blocks to measure: until the estimates are precise enough, or plainly on one side of their limits.

An interval that is looked at after every block, and believed as soon as a limit lies outside, would be wrong more often
than it promises. So a look ends the measurement only in two cases: the interval is as narrow as was asked for, or an
interval twice as wide would give the same verdict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgekron.runtimes.ranks import FEWEST
from edgekron.runtimes.statistics import Interval

from .blocks import MeasuredBlock, measure_block
from .budget import CheckEffort

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import Progress
    from edgekron.runtimes.devices import Device

#: An estimate of something positive, and the limit it is for; None where it is only to be known precisely.
Target = tuple[Interval, float | None]


class MeasureBlock(Protocol):
    """How one block is measured: ``blocks.measure_block``, or a test's own."""

    def __call__(
        self, files: Sequence[Path], device: Device, threads: int, index: int, arena: bool = False
    ) -> MeasuredBlock:
        """The block of this number; ``arena`` asks for the tensor arena of the first file too."""
        ...


@dataclass(frozen=True)
class Instruments:
    """How a block is measured, and the clock, in seconds, that says when the time for blocks is over."""

    measure: MeasureBlock = measure_block
    clock: Callable[[], float] = time.monotonic


INSTRUMENTS = Instruments()


def clear(target: Target, precision: float) -> bool:
    """Whether a measurement need not go on for this target's sake.

    Either half the interval is within ``precision`` (relative), or the limit lies outside of an interval that is twice
    as wide on a logarithmic scale.
    """
    interval, limit = target
    low, centre, high = (math.log(x) for x in (interval.low, interval.value, interval.high))
    if (high - low) / 2 <= math.log1p(precision):
        return True
    if limit is None:
        return False
    return not 2 * low - centre <= math.log(limit) <= 2 * high - centre


def sample(
    files: Sequence[Path],
    device: Device,
    effort: CheckEffort,
    least: int,
    targets: Callable[[Sequence[MeasuredBlock]], Sequence[Target]] | None,
    progress: Progress,
    *,
    arena: bool = False,
    instruments: Instruments = INSTRUMENTS,
) -> list[MeasuredBlock]:
    """Measures blocks until all ``targets`` of them are clear, or for ``effort.seconds`` after which no block begins.

    ``least`` blocks are measured without a look; without ``targets`` there are no more than that. Fewer come back only
    where the time does not allow for more. ``arena`` asks for the tensor arena of the first file in every block.
    """
    blocks: list[MeasuredBlock] = []
    started = instruments.clock()
    while True:
        done = min(len(blocks), least)
        progress(f"measuring {files[0].name}", done, least)
        if len(blocks) >= least:
            if targets is None:
                return blocks
            if len(blocks) >= FEWEST and all(clear(target, effort.precision) for target in targets(blocks)):
                return blocks
        if blocks and instruments.clock() - started >= effort.seconds:
            return blocks
        blocks.append(instruments.measure(files, device, effort.threads, len(blocks), arena=arena))
