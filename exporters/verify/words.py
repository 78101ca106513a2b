"""What a chain says, as one sentence: for each kind of change how far it moves the outputs and where it enters most."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .walk import Chain, Step


def conclusion(chain: Chain) -> str:
    """One sentence; a kind with several steps is told by the one that moves the outputs most."""
    kinds = list(dict.fromkeys(step.link.kind for step in chain.steps))
    told = [_told(kind, [step for step in chain.steps if step.link.kind == kind], chain.images) for kind in kinds]
    sentence = "; ".join(told) + "."
    return sentence[:1].upper() + sentence[1:]


def _told(kind: str, steps: Sequence[Step], images: bool) -> str:
    step = max(steps, key=moved)
    most = "at most " if len(steps) > 1 else ""
    moves, enters = ("move", "enter") if len(step.link.kinds) > 1 else ("moves", "enters")
    text = f"{kind} {moves} the outputs by {most}{number(moved(step))}{_kept(step) if images else ''}"
    worst = max((s.worst for s in steps if s.worst), key=lambda part: part.entered or 0.0, default=None)
    if worst is not None and worst.entered is not None:
        text += f" and {enters} most at {worst.name} ({number(worst.entered)})"
    return text


def moved(step: Step) -> float:
    """The relative error of the outputs in the mean square on the case for layers, the largest of all outputs."""
    return max((10 ** (-row.sqnr_db / 20) for row in step.real), default=0.0)


def number(error: float) -> str:
    """A relative error with two digits: in percent where that is no row of zeros."""
    if not math.isfinite(error):
        return "more than everything"
    return f"{100 * error:.2g} %" if 0.001 <= error < 1 else f"{error:.0%}" if error >= 1 else f"{error:.1e}"


def _kept(step: Step) -> str:
    """How many images have the same class as before; random ones have none to keep."""
    agreements = [row.agreement for row in step.real if row.agreement is not None]
    return f" ({100 * min(agreements):.4g} % keep their class)" if agreements else ""
