"""Counts of instructions by class for every inference, and how the outputs compare with this machine's outputs.

A count is no time, and cannot be turned into one: the same number of instructions takes a different time on every
processor, and a processor that waits for memory executes none meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import MachineFacts, RuntimeFacts

#: Of the JSON; raised whenever a field changes its meaning.
FORMAT = 1
#: The classes of the counter, in its order (classes.h says what they hold).
CLASSES = (
    "instructions",
    "loads",
    "stores",
    "branches",
    "vector_float",
    "float_macs",
    "integer_macs",
    "dot_products",
)
#: Counts of one file repeat within this part of themselves; more means that something else was counted too.
REPEATS_WITHIN = 1e-3
#: Float outputs agree within this part of the largest output.
FLOAT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Agreement:
    """The outputs of one file on the board against the same file's on this machine, over all outputs.

    ``kind`` is "integer" when all outputs are, else "float". ``differing`` is the number of unequal elements of
    ``elements``; ``relative`` the largest difference divided by the largest absolute value of the same output.
    """

    kind: str
    elements: int
    differing: int
    relative: float

    @property
    def equal(self) -> bool:
        """Integers to the bit, floats within ``FLOAT_TOLERANCE``."""
        return self.differing == 0 or (self.kind == "float" and self.relative <= FLOAT_TOLERANCE)


@dataclass(frozen=True)
class FileCount:
    """One file: a mapping of the classes for each counted inference."""

    file: str
    runtime: RuntimeFacts
    inferences: tuple[Mapping[str, int], ...]
    agreement: Agreement

    def count(self, name: str) -> int:
        """The median of a class over the inferences."""
        return round(median(inference[name] for inference in self.inferences))

    @property
    def instructions(self) -> int:
        """All instructions of one inference."""
        return self.count("instructions")

    @property
    def spread(self) -> float:
        """The largest less the smallest count, as a part of the median."""
        counts = [inference["instructions"] for inference in self.inferences]
        return (max(counts) - min(counts)) / self.instructions


@dataclass(frozen=True)
class InstructionReport:
    """Counts of one or several files on one emulated board; the first file is the reference of the others."""

    device: str
    board: MachineFacts
    files: tuple[FileCount, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The instructions of each file as a part of the first one's."""
        return tuple(file.instructions / self.files[0].instructions for file in self.files)

    @property
    def agree(self) -> bool:
        """Whether every file computes the same on the board as on this machine."""
        return all(file.agreement.equal for file in self.files)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about counts that do not repeat and outputs that differ."""
        found = [
            f"{file.file}: the counts of {len(file.inferences)} inferences differ by {file.spread:.2%}; "
            "something besides the inference was counted"
            for file in self.files
            if file.spread > REPEATS_WITHIN
        ]
        found += [
            f"{file.file}: outputs on the board differ from this machine's ({file.agreement.differing} of "
            f"{file.agreement.elements} elements, by up to {file.agreement.relative:.1e} of the largest)"
            for file in self.files
            if not file.agreement.equal
        ]
        return tuple(found)

    def to_json(self) -> dict[str, object]:
        """Plain data that ``json.dumps`` takes."""
        return {
            "format": FORMAT,
            "unit": "instruction",
            "device": self.device,
            "board": dict(self.board),
            "reference": self.files[0].file,
            "warnings": list(self.warnings),
            "files": [
                {
                    "file": file.file,
                    "runtime": dict(file.runtime),
                    "counts": {name: file.count(name) for name in CLASSES},
                    "ratio": ratio,
                    "spread": file.spread,
                    "outputs": {**asdict(file.agreement), "equal": file.agreement.equal},
                    "inferences": [dict(inference) for inference in file.inferences],
                }
                for file, ratio in zip(self.files, self.ratios, strict=True)
            ],
        }
