"""A chain in words: one sentence with the size of each kind of change, and notes on what could not be told."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekron.graph.identity import TUNING

from .links import CONVERSION, KINDS
from .walk import Step, VersionChain

#: Kinds of change that keep the function of a network, and can be judged on any input.
_KEEP_THE_FUNCTION = (CONVERSION, TUNING)


def conclusion(chain: VersionChain) -> str:
    """For each kind of change how far it moves the outputs, and the layer at which most of its error enters.

    Of a kind with several steps, the step that moves the outputs most is told.
    """
    kinds = list(dict.fromkeys(step.link.kind for step in chain.steps))
    told = [_told(kind, [step for step in chain.steps if step.link.kind == kind], chain.images) for kind in kinds]
    sentence = "; ".join(told) + "."
    return sentence[:1].upper() + sentence[1:]


def notes(chain: VersionChain) -> list[str]:
    """Sentences on what a chain leaves open: values not compared, changes not told apart, input that is not real."""
    told = [
        f"{step.title} shares no values with {step.against} by name; only their outputs were compared."
        for step in chain.steps
        if chain.layers and not step.parts and not step.within
    ]
    if not chain.layers and not any(step.within for step in chain.steps):
        told.append("no layer is known, so that outputs alone were compared; give the model or the folder too.")
    told += [
        f"{step.title} differs from {step.against} by {step.link.kind}, and its error cannot be told apart; give the "
        "versions between them too."
        for step in chain.steps
        if len(step.link.kinds) > 1
    ]
    return told if chain.images else [*told, *_on_random_input(chain)]


def _on_random_input(chain: VersionChain) -> list[str]:
    precision = chain.versions[-1].version.precision
    if chain.pair and precision != "float32":
        told = f"a file with {precision} is judged by SQNR and agreement on real images; give --data."
        return [f"{told} What lies beyond the images it was calibrated on saturates."]
    changed = {kind for step in chain.steps for kind in step.link.kinds}
    kinds = [kind for kind in KINDS if kind in changed and kind not in _KEEP_THE_FUNCTION]
    are = "are" if len(kinds) > 1 else "is"
    return [f"on random input; {' and '.join(kinds)} {are} judged on real images: give --data."] if kinds else []


def _told(kind: str, steps: Sequence[Step], images: bool) -> str:
    step = max(steps, key=_moved)
    most = "at most " if len(steps) > 1 else ""
    moves, enters = ("move", "enter") if len(step.link.kinds) > 1 else ("moves", "enters")
    text = f"{kind} {moves} the outputs by {most}{_number(_moved(step))}{_kept(step) if images else ''}"
    worst = max((s.worst for s in steps if s.worst), key=lambda part: part.entered or 0.0, default=None)
    if worst is not None and worst.entered is not None:
        text += f" and {enters} most at {worst.name} ({_number(worst.entered)})"
    return text


def _moved(step: Step) -> float:
    """The relative error of the outputs in the mean square on the main case, the largest of all outputs."""
    return max((10 ** (-row.sqnr_db / 20) for row in step.real), default=0.0)


def _number(error: float) -> str:
    """A relative error with two digits: in percent where that is no row of zeros."""
    if not math.isfinite(error):
        return "more than everything"
    return f"{100 * error:.2g} %" if 0.001 <= error < 1 else f"{error:.0%}" if error >= 1 else f"{error:.1e}"


def _kept(step: Step) -> str:
    """The share of images that have the same class as before, in words; nothing where outputs are no scores."""
    agreements = [row.agreement for row in step.real if row.agreement is not None]
    return f" ({100 * min(agreements):.4g} % keep their class)" if agreements else ""
