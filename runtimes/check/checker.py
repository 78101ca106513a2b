"""Runs a check: measures as much as the limits of each model need, judges, and tries again if that may help."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.agent.messages import MachineFacts
from edgekron.runtimes.ranks import FEWEST
from edgekron.runtimes.statistics import Interval

from .baseline import Baseline, BaselineEntry
from .blocks import MeasuredBlock
from .budget import Budget, CheckEffort
from .estimates import UnknownError, estimate
from .fingerprint import Identity, identity
from .job import Job, prepare
from .limits import Evidence, Limit
from .operators import count_operators
from .outcome import ModelOutcome, Outcome
from .sampling import INSTRUMENTS, Instruments, Target, sample
from .units import show
from .verdict import Judgement, Verdict, exact, judge

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import Progress
    from edgekron.runtimes.devices import Device

#: Top-1 of a file on a named data set, as a fraction.
TopOne = Callable[[Path, str], float]

#: Blocks that each kind of evidence takes at least.
_LEAST = {Evidence.LOADED: 1, Evidence.MEMORY: 3, Evidence.TIMED: FEWEST}


def check(
    budget: Budget,
    device: Device,
    *,
    models: Collection[str] = (),
    baseline: Baseline | None = None,
    record: bool = False,
    top1: TopOne | None = None,
    progress: Progress = lambda _what, _done, _total: None,
    instruments: Instruments = INSTRUMENTS,
) -> Outcome:
    """Checks the models of these names, all for none, on one device.

    ``baseline`` is for the limits that compare with one; with ``record`` those are left out and every model is measured
    precisely enough to become one (``ModelOutcome.entry``). Raises ``RuntimeFailure`` for a limit that cannot be judged
    on this device, and for a file that is missing or cannot be run.
    """
    chosen = budget.select(models)
    jobs = [prepare(budget, model, device, record) for model in chosen]
    outcomes = [_Check(job, device, budget.effort, baseline, record, top1, progress, instruments).run() for job in jobs]
    facts = next((outcome.blocks[0].facts for outcome in outcomes if outcome.blocks), MachineFacts())
    date = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Outcome(budget.path, device.name, date, budget.effort.threads, tuple(outcomes), facts)


@dataclass(frozen=True)
class _Check:
    """The check of one model."""

    job: Job
    device: Device
    effort: CheckEffort
    baseline: Baseline | None
    record: bool
    top1: TopOne | None
    progress: Progress
    instruments: Instruments

    def run(self) -> ModelOutcome:
        """Measures and judges, again while an attempt is left and may help."""
        fixed = {limit.key: self._fixed(limit) for limit in self.job.limits if limit.kind.evidence < Evidence.LOADED}
        blocks: list[MeasuredBlock] = []
        judged: dict[str, Judgement] = {}
        attempts = 0
        measured = [limit for limit in self.job.limits if limit.kind.evidence >= Evidence.LOADED]
        while self.job.evidence >= Evidence.LOADED and attempts < self.effort.attempts:
            attempts += 1
            blocks = self._sample()
            judged = {limit.key: self._judge(limit, blocks) for limit in measured}
            if not any(judgement.again for judgement in judged.values()):
                break
        every = fixed | judged
        return ModelOutcome(
            name=self.job.model.name,
            file=self.job.model.file,
            judgements=tuple(every[limit.key] for limit in self.job.limits),
            attempts=attempts,
            blocks=tuple(blocks),
            reference=self.job.files[1] if len(self.job.files) > 1 else None,
            notes=tuple(dict.fromkeys(self._notes(blocks))),
            entry=self._entry(blocks) if self.record else None,
        )

    def _fixed(self, limit: Limit) -> Judgement:
        """The judgement on a limit that needs no measuring: the file or the data set decides."""
        file = self.job.model.file
        if limit.kind.key == "file_size":
            return judge(limit, exact(file.stat().st_size))
        if limit.kind.key == "operators":
            return judge(limit, exact(count_operators(file)[limit.operator]))
        data = self.job.model.data
        if self.top1 is None or data is None:
            raise RuntimeFailure(f"top1 of {self.job.model.name} needs a data set and someone who reads it.")
        return judge(limit, exact(self.top1(file, data)))

    def _sample(self) -> list[MeasuredBlock]:
        timed = self.job.evidence is Evidence.TIMED
        arena = any(limit.kind.key.startswith("arena") for limit in self.job.limits)
        return sample(
            self.job.files,
            self.device,
            self.effort,
            _LEAST[self.job.evidence],
            self._targets if timed else None,
            self.progress,
            arena=arena,
            instruments=self.instruments,
        )

    def _targets(self, blocks: Sequence[MeasuredBlock]) -> list[Target]:
        """The estimates of the timed limits from the blocks so far; to record, that of the latency itself."""
        clean = _clean(blocks)
        if len(clean) < FEWEST:
            return [_UNKNOWN]
        machine = identity(clean[0].facts)
        found: list[Target] = [(estimate("latency_median", clean, None), None)] if self.record else []
        for limit in self.job.limits:
            if limit.kind.evidence is not Evidence.TIMED:
                continue
            entry = self._baseline(machine)[0] if limit.kind.key.endswith("_vs_baseline") else None
            try:
                found.append((estimate(limit.kind.key, clean, entry), limit.bound))
            except UnknownError:
                continue
        return found

    def _judge(self, limit: Limit, blocks: Sequence[MeasuredBlock]) -> Judgement:
        kind, entry = limit.kind, None
        clock = blocks[0].facts.get("clock") if blocks else None
        if clock and kind.quantity == "seconds":
            raise RuntimeFailure(
                f"{limit.key} of {self.job.model.name} cannot be judged on {self.device.name}, whose clock counts "
                f"{clock}; limit its ratio there, or put it under a device with a clock."
            )
        timed = kind.evidence is Evidence.TIMED
        clean = _clean(blocks) if timed else list(blocks)
        if timed and len(clean) < FEWEST:
            spoilt = next((text for block in blocks for text in block.spoilt), None)
            allowed = show(self.effort.seconds, "seconds")
            few = f"only {len(clean)} of {FEWEST} measurements fitted into {allowed}; raise time in [measure]"
            return Judgement(limit, None, Verdict.INCONCLUSIVE, spoilt or few, again=spoilt is not None)
        if kind.key.endswith("_vs_baseline"):
            entry, why = self._baseline(identity(blocks[0].facts))
            if entry is None:
                return Judgement(limit, None, Verdict.INCONCLUSIVE, why)
        try:
            measured = estimate(kind.key, clean, entry)
        except UnknownError as unknown:
            return Judgement(limit, None, Verdict.INCONCLUSIVE, str(unknown))
        busy = [block.busy for block in clean if block.busy]
        # Files that take turns share what disturbs them, so their ratio is as good as its interval.
        shared = kind.key.endswith("_vs_reference") or not timed
        return judge(limit, measured, busy=busy[-1] if 2 * len(busy) > len(clean) and not shared else "")

    def _notes(self, blocks: Sequence[MeasuredBlock]) -> list[str]:
        """Sentences about the blocks, and about the baseline that they were compared with."""
        notes = [note for block in blocks for note in block.notes]
        notes += [f"measurements were left out: {text}" for block in blocks for text in block.spoilt]
        if blocks and any(limit.kind.key.endswith("_vs_baseline") for limit in self.job.limits):
            entry, _ = self._baseline(identity(blocks[0].facts))
            now = _runtime(blocks[0])
            if entry is not None and entry.runtime != now:
                notes.append(f"the baseline was measured in {entry.runtime}, this is {now}")
        return notes

    def _baseline(self, machine: Identity) -> tuple[BaselineEntry | None, str]:
        if self.baseline is None:
            return None, "there is no baseline; run with --write-baseline on this machine"
        return self.baseline.find(machine, self.device.name, self.job.model.name, self.effort.threads)

    def _entry(self, blocks: Sequence[MeasuredBlock]) -> BaselineEntry | None:
        clean = _clean(blocks)
        runs = [block.runs[0] for block in clean]
        counts = tuple(run.instructions for run in runs if run.instructions is not None)
        if len(clean) < FEWEST and not counts:
            return None
        return BaselineEntry(
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            threads=self.effort.threads,
            sha256=hashlib.sha256(self.job.model.file.read_bytes()).hexdigest(),
            runtime=_runtime(clean[0]),
            latency=() if counts else tuple(run.median for run in runs),
            instructions=counts,
        )


#: A target that is not clear yet.
_UNKNOWN: Target = (Interval(1.0, 0.1, 10.0), None)


def _runtime(block: MeasuredBlock) -> str:
    described = block.runs[0].runtime
    return f"{described['runtime']} {described['version']}"


def _clean(blocks: Sequence[MeasuredBlock]) -> list[MeasuredBlock]:
    return [block for block in blocks if not block.spoilt]
