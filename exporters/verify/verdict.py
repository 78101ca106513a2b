"""The verdict on a chain: whether the bounds that a user gave are kept, each on the steps that it is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekron.errors import UserError

from .compare import Difference, finite
from .links import CONVERSION, QUANTIZATION, Link
from .walk import Step, VersionChain


@dataclass(frozen=True)
class Bounds:
    """The bounds of a user, None where none was given.

    ``tolerance`` is the largest relative error of an output; ``sqnr`` (dB) and ``agreement`` (percent of the images
    with the same class) are the least ones on real images.
    """

    tolerance: float | None = None
    sqnr: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Measure:
    """One number with its bound, a least one or a largest one; ``value`` is None where it is unknown, ``bound`` where
    there is none. ``told`` says whether readers of a verdict want to see it.
    """

    text: str
    key: str
    value: float | None
    bound: float | None
    least: bool
    told: bool = True

    @property
    def kept(self) -> bool:
        """Whether the bound is kept; no bound always is, and an unknown value keeps none."""
        if self.bound is None:
            return True
        if self.value is None:
            return False
        return self.value >= self.bound if self.least else self.value <= self.bound

    def __str__(self) -> str:
        shown = self.text.format(self.value)
        if self.bound is None:
            return shown
        if self.kept:
            return f"{shown}: within {self.bound:g}"
        return f"{shown}: {'BELOW' if self.least else 'EXCEEDS'} {self.bound:g}"

    def to_json(self) -> dict[str, object]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        return {
            "measure": self.key,
            "of": self.text,
            "value": finite(self.value),
            "bound": self.bound,
            "kept": self.kept,
        }


@dataclass(frozen=True)
class ComparisonVerdict:
    """The measures of a chain that are bounded; of a pair, of which all are of one comparison, the others too."""

    measures: Sequence[Measure]

    @property
    def passed(self) -> bool:
        """Whether every bound is kept."""
        return all(measure.kept for measure in self.measures)

    def lines(self) -> list[str]:
        """A line for each measure that readers want to see."""
        return [str(measure) for measure in self.measures if measure.told]

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {"bounds": [measure.to_json() for measure in self.measures], "passed": self.passed}


def check_bounds(found: Sequence[Link], bounds: Bounds) -> None:
    """Raises ``UserError`` for a tolerance that no step of a chain can be judged by, before the chain is walked."""
    if bounds.tolerance is not None and len(found) > 1 and not any(link.kinds == (CONVERSION,) for link in found):
        raise UserError("no step of this chain converts and does nothing else; leave --tolerance out.")


def judge(chain: VersionChain, bounds: Bounds) -> ComparisonVerdict:
    """The verdict on a chain.

    In a chain of two all bounds are for its one step. In a longer one the tolerance is for every step that converts and
    does nothing else; SQNR and agreement are for every step that quantizes and does nothing else, and for the last
    version against the first. Raises ``UserError`` for a bound on agreement where no output is a list of scores.
    """
    return ComparisonVerdict(_of_pair(chain, bounds) if chain.pair else _of_chain(chain, bounds))


def _of_pair(chain: VersionChain, bounds: Bounds) -> list[Measure]:
    """All three measures. Readers want the largest error of a file in float32, SQNR and agreement of smaller types, and
    every measure with a bound.
    """
    (step,) = chain.steps
    exact = chain.versions[1].version.precision == "float32"
    error = _error(step, "worst relative error of an output {:.2e}", bounds, told=exact)
    rows = step.real if chain.images else []
    return [error, *_real(rows, ("SQNR of an output on the images", "the same class for"), bounds, told=not exact)]


def _of_chain(chain: VersionChain, bounds: Bounds) -> list[Measure]:
    converting = [step for step in chain.steps if step.link.kinds == (CONVERSION,)]
    quantizing = [step for step in chain.steps if step.link.kinds == (QUANTIZATION,)]
    errors = [
        _error(step, f"{_pair(step)}, worst relative error of an output {{:.2e}}", bounds, told=True)
        for step in converting
    ]
    last = chain.steps[-1]
    pairs = [(_pair(step), step.real) for step in quantizing]
    pairs.append((f"{last.title} from {chain.versions[0].title}", last.since))
    real = [
        measure
        for name, rows in pairs
        for measure in _real(rows, (f"{name}, SQNR on the images", f"{name}, the same class for"), bounds, told=True)
    ]
    return [measure for measure in (*errors, *real) if measure.bound is not None]


def _pair(step: Step) -> str:
    return f"{step.title} from {step.against}"


def _error(step: Step, text: str, bounds: Bounds, *, told: bool) -> Measure:
    worst = max(row.relative for row in step.outputs)
    told = told or bounds.tolerance is not None
    return Measure(text, "worst_relative", worst, bounds.tolerance, least=False, told=told)


def _real(rows: Sequence[Difference], words: tuple[str, str], bounds: Bounds, *, told: bool) -> list[Measure]:
    """SQNR and agreement over the ``rows``, which are of real images; unknown where there are none."""
    sqnr = min((row.sqnr_db for row in rows), default=None)
    same = min((100 * row.agreement for row in rows if row.agreement is not None), default=None)
    if bounds.agreement is not None and same is None:
        raise UserError("no output is a list of scores [N, classes]; leave --agreement out, or give --sqnr.")
    return [
        Measure(text, key, value, bound, least=True, told=bound is not None or (told and value is not None))
        for text, key, value, bound in (
            (f"{words[0]} {{:.1f}} dB", "sqnr_db", sqnr, bounds.sqnr),
            (f"{words[1]} {{:.2f}} % of the images", "agreement", same, bounds.agreement),
        )
    ]
