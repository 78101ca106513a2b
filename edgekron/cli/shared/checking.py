"""A check from a budget file's name: opens the device, baseline and data sets, for the command and for pytest."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

from .model_files import inputs_of

if TYPE_CHECKING:
    from edgekron.processes import Progress
    from edgekron.runtimes.check import Baseline, Budget, Outcome

_BATCH = 100


def run_check(
    budget_file: str | Path,
    *,
    on: str | None = None,
    models: Collection[str] = (),
    baseline: str | Path | None = None,
    record: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> tuple[Outcome, Baseline | None]:
    """The outcome on one device (the budget's unless given), and the baseline file that it was compared with.

    To ``record``, the baseline file may be missing. Raises ``RuntimeFailure`` for what is wrong with the budget, the
    files or the device.
    """
    from edgekron.runtimes.check import check, read_budget
    from edgekron.runtimes.devices import open_device

    budget = read_budget(budget_file)
    name = on or budget.device
    known = _baseline(budget, name, models, Path(baseline) if baseline else budget.baseline, record)
    with closing(open_device(name)) as device:
        outcome = check(
            budget,
            device,
            models=models,
            baseline=known,
            record=record,
            top1=lambda file, data: _top1(file, data, progress),
            progress=progress,
        )
    return outcome, known


def _baseline(budget: Budget, device: str, models: Collection[str], path: Path | None, record: bool) -> Baseline | None:
    """The baseline that the limits need, or None; to record, an empty one where the file does not exist yet."""
    from edgekron.runtimes.check import Baseline, read_baseline

    if path is None and record:
        raise UserError(f"{budget.path} names no baseline file; add `baseline` to it, or give --baseline FILE.")
    if path is None:
        return None
    if record:
        return read_baseline(path) if path.exists() else Baseline(path, {})
    limits = (limit for model in budget.select(models) for limit in model.limits_on(device))
    return read_baseline(path) if any(limit.kind.key.endswith("_vs_baseline") for limit in limits) else None


def _top1(file: Path, data: str, progress: Progress) -> float:
    """Top-1 on this machine: a file scores the same wherever its runtime runs it."""
    from edgekron.models import datasets
    from edgekron.runtimes import top1
    from edgekron.runtimes.agent.environment import allowed_cores

    inputs = inputs_of([file])
    if inputs:
        images = datasets.load(data, shape=inputs[0].image, dtype=inputs[0].dtype).fed_to(inputs[0])
    else:
        images = datasets.load(data)
    threads = len(allowed_cores() or [0])
    what, total = f"top-1 of {file.name}", len(images)
    return top1(file, images.batches(_BATCH), threads=threads, progress=lambda done: progress(what, done, total)).top1
