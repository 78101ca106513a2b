"""The verdict on a chain: whether the bounds that a user gave are kept, each on the steps that it is meant for.

Each part of a joined output must keep the bounds. An output or part that is lost (see ``compare``) is said by name,
whatever the bounds; it fails the verdict where any bound is given, and in an int8 file that is compared on real images:
such a file is made to be used as it is, while a network that was just compressed may be about to be trained. A bound on
the SQNR that is lower than ``LOST`` stands in for ``LOST``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekron.errors import UserError

from .compare import LOST, Difference, finite
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
    """The measures of a chain that are bounded; of a pair, of which all are of one comparison, the others too.

    ``lost`` has a sentence for each output, or part of an output, that is lost; ``failing`` says whether one of them
    fails the verdict.
    """

    measures: Sequence[Measure]
    lost: Sequence[str] = ()
    failing: bool = False

    @property
    def passed(self) -> bool:
        """Whether every bound is kept, and nothing is lost that must not be."""
        return not self.failing and all(measure.kept for measure in self.measures)

    def lines(self) -> list[str]:
        """A line for each measure that readers want to see, and for all that is lost."""
        return [*(str(measure) for measure in self.measures if measure.told), *self.lost]

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        bounds = [measure.to_json() for measure in self.measures]
        return {"bounds": bounds, "lost": list(self.lost), "passed": self.passed}


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
    measures = _of_pair(chain, bounds) if chain.pair else _of_chain(chain, bounds)
    lost = dict(_lost(chain, bounds))
    return ComparisonVerdict(measures, list(lost), any(lost.values()))


def _lost(chain: VersionChain, bounds: Bounds) -> Iterator[tuple[str, bool]]:
    """(a sentence for each output or part that a step of the chain loses, whether the loss fails the verdict)."""
    bounded = (bounds.tolerance, bounds.sqnr, bounds.agreement) != (None, None, None)
    least = LOST if bounds.sqnr is None else min(LOST, bounds.sqnr)
    for step in chain.steps:
        int8 = chain.images and chain.versions[step.link.child].version.precision == "int8"
        # The last version is judged against the first too: a part can go bit by bit.
        for row in (*step.real, *(step.since if step is chain.steps[-1] else ())):
            if row.lost(least):
                how = "all its values are one number" if row.one_number else f"its SQNR is {row.sqnr_db:.1f} dB"
                yield f"{row.name} is LOST in {step.title}: {how} on {row.case}.", bounded or int8


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
