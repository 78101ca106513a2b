"""The outcome of a check: the judgements of every model with their blocks, as plain data for every kind of output."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekron.runtimes.agent.messages import MachineFacts

from .baseline import BaselineEntry
from .blocks import MeasuredBlock
from .fingerprint import fingerprint, identity
from .verdict import Judgement, Verdict, worst

#: Of the JSON (its schema is docs/check.schema.json); raised whenever a field changes its meaning.
FORMAT = 1


@dataclass(frozen=True)
class ModelOutcome:
    """One model: its judgements, from the last of ``attempts`` measurements, which has these ``blocks``."""

    name: str
    file: Path
    judgements: tuple[Judgement, ...]
    attempts: int
    blocks: tuple[MeasuredBlock, ...]
    reference: Path | None = None
    notes: tuple[str, ...] = ()
    #: What the baseline of the next check may hold; None where nothing of that kind was measured.
    entry: BaselineEntry | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst of the limits'."""
        return worst(judgement.verdict for judgement in self.judgements)

    def to_json(self) -> dict[str, object]:
        """Plain data; latencies in seconds, one a block."""
        latency: dict[str, list[float]] = {}
        if self.blocks and self.blocks[0].runs[0].rounds:
            files = (self.file,) if self.reference is None else (self.file, self.reference)
            latency = {
                str(file): [block.runs[index].median for block in self.blocks] for index, file in enumerate(files)
            }
        return {
            "name": self.name,
            "file": str(self.file),
            "reference": None if self.reference is None else str(self.reference),
            "verdict": str(self.verdict),
            "attempts": self.attempts,
            "blocks": len(self.blocks),
            "runtime": dict(self.blocks[0].runs[0].runtime) if self.blocks else None,
            "latency": latency,
            "limits": [judgement.to_json() for judgement in self.judgements],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Outcome:
    """A whole check on one device. ``facts`` describe the machine, empty where nothing had to be measured."""

    budget: Path
    device: str
    date: str
    threads: int
    models: tuple[ModelOutcome, ...]
    facts: MachineFacts = field(default_factory=MachineFacts)

    @property
    def verdict(self) -> Verdict:
        """The worst of the models'."""
        return worst(model.verdict for model in self.models)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 inconclusive."""
        return self.verdict.exit_code

    def to_json(self) -> dict[str, object]:
        """Plain data that ``json.dumps`` takes and docs/check.schema.json describes."""
        machine = identity(self.facts)
        return {
            "format": FORMAT,
            "budget": str(self.budget),
            "device": self.device,
            "date": self.date,
            "threads": self.threads,
            "machine": {"fingerprint": fingerprint(machine), "identity": machine} if machine else None,
            "environment": dict(self.facts),
            "verdict": str(self.verdict),
            "exit_code": self.exit_code,
            "models": [model.to_json() for model in self.models],
        }
