"""TBD."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekron.errors import UserError

if TYPE_CHECKING:
    from edgekron.exporters.verify import Chain, Link

    from .compare import Difference


_NO_SCORES = "no output is a list of scores [N, classes]; leave --agreement out, or give --sqnr."


@dataclass(frozen=True)
class Measure:
    """One number with its bound, a least one or a largest one; both None where there is none."""

    text: str
    key: str
    value: float | None
    bound: float | None
    least: bool

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


@dataclass(frozen=True)
class Verdict:
    """The measures of a comparison; ``precision`` is the candidate's.

    A file in float32 is judged by its largest error, one with smaller types by SQNR and agreement on real images.
    """

    precision: str
    measures: Sequence[Measure]

    @property
    def passed(self) -> bool:
        """Whether every bound is kept."""
        return all(measure.kept for measure in self.measures)

    def lines(self) -> list[str]:
        """What to say: the measures that fit the precision, and every one with a bound."""
        error, *real = self.measures
        exact = self.precision == "float32"
        shown = [m for m in real if m.bound is not None or (m.value is not None and not exact)]
        if exact or error.bound is not None:
            shown.insert(0, error)
        lines = [str(measure) for measure in shown]
        if not exact and all(measure.value is None for measure in real):
            lines.append(
                f"a file with {self.precision} is judged by SQNR and agreement on real images; give --data. What lies "
                "beyond the images it was calibrated on saturates."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        data: dict[str, Any] = {"precision": self.precision}
        for measure in self.measures:
            finite = measure.value is not None and math.isfinite(measure.value)
            data[measure.key] = measure.value if finite else None
        error, *real = self.measures
        return {
            **data,
            "tolerance": error.bound,
            "bounds": {measure.key: measure.bound for measure in real},
            "passed": self.passed,
        }


def judge(ends: Sequence[Difference], real: str | None, precision: str, arguments: argparse.Namespace) -> Verdict:
    """The verdict on the rows of the outputs, of which those of the case ``real`` are of real images."""
    rows = [row for row in ends if row.case == real]
    agreements = [100 * row.agreement for row in rows if row.agreement is not None]
    if arguments.agreement is not None and not agreements:
        raise UserError(_NO_SCORES)
    worst = max(row.relative for row in ends)
    sqnr = min((row.sqnr_db for row in rows), default=None)
    same = min(agreements, default=None)
    return Verdict(
        precision,
        [
            Measure("worst relative error of an output {:.2e}", "worst_relative", worst, arguments.tolerance, False),
            Measure("SQNR of an output on the images {:.1f} dB", "sqnr_db", sqnr, arguments.sqnr, True),
            Measure("the same class for {:.2f} % of the images", "agreement", same, arguments.agreement, True),
        ],
    )


@dataclass(frozen=True)
class ChainVerdict:
    """The bounds on a chain, each on the steps that it is meant for."""

    measures: Sequence[Measure]

    @property
    def passed(self) -> bool:
        """Whether every bound is kept."""
        return all(measure.kept for measure in self.measures)

    def lines(self) -> list[str]:
        """One line a bound and step."""
        return [str(measure) for measure in self.measures]

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        rows = [
            {
                "measure": measure.key,
                "of": measure.text,
                "value": measure.value if measure.value is not None and math.isfinite(measure.value) else None,
                "bound": measure.bound,
                "kept": measure.kept,
            }
            for measure in self.measures
        ]
        return {"bounds": rows, "passed": self.passed}


def check_conversions(found: Sequence[Link], arguments: argparse.Namespace) -> None:
    """Raises ``UserError`` for a tolerance that no step of a chain can be judged by."""
    from edgekron.exporters.verify import CONVERSION

    if arguments.tolerance is not None and not any(link.kinds == (CONVERSION,) for link in found):
        raise UserError("no step of this chain converts and does nothing else; leave --tolerance out.")


def judge_chain(chain: Chain, arguments: argparse.Namespace) -> ChainVerdict:
    """``--tolerance`` on every step that converts and does nothing else; ``--sqnr`` and ``--agreement`` on every step
    that quantizes and nothing else, and on the last version against the first.

    Raises ``UserError`` for ``--agreement`` where no output is a list of scores.
    """
    from edgekron.exporters.verify import CONVERSION, QUANTIZATION

    measures: list[Measure] = []
    if arguments.tolerance is not None:
        for step in (step for step in chain.steps if step.link.kinds == (CONVERSION,)):
            worst = max(row.relative for row in step.outputs)
            text = f"{step.title} from {step.against}, worst relative error of an output {{:.2e}}"
            measures.append(Measure(text, "worst_relative", worst, arguments.tolerance, False))
    quantized = [step for step in chain.steps if step.link.kinds == (QUANTIZATION,)]
    first, last = chain.versions[0].title, chain.steps[-1]
    pairs = [(f"{step.title} from {step.against}", step.real) for step in quantized]
    for name, rows in (*pairs, (f"{last.title} from {first}", last.since)):
        if arguments.sqnr is not None:
            sqnr = min(row.sqnr_db for row in rows)
            measures.append(Measure(f"{name}, SQNR on the images {{:.1f}} dB", "sqnr_db", sqnr, arguments.sqnr, True))
        if arguments.agreement is not None:
            agreements = [100 * row.agreement for row in rows if row.agreement is not None]
            if not agreements:
                raise UserError(_NO_SCORES)
            text = f"{name}, the same class for {{:.2f}} % of the images"
            measures.append(Measure(text, "agreement", min(agreements), arguments.agreement, True))
    return ChainVerdict(measures)
