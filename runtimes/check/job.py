"""The limits of one model on one device; those that the device cannot judge are refused before measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.backends import backend
from edgekron.runtimes.agent.errors import RuntimeFailure

from .blocks import counts_instructions
from .budget import Budget, ModelBudget
from .limits import Evidence, Limit

if TYPE_CHECKING:
    from edgekron.runtimes.devices import Device


@dataclass(frozen=True)
class Job:
    """A model with the limits that are judged on this device."""

    model: ModelBudget
    limits: tuple[Limit, ...]
    evidence: Evidence

    @property
    def files(self) -> list[Path]:
        """The files to measure: the model, and its reference if a limit compares with that."""
        compared = any(limit.kind.key.endswith("_vs_reference") for limit in self.limits)
        return [self.model.file, self.model.reference] if compared and self.model.reference else [self.model.file]


def prepare(budget: Budget, model: ModelBudget, device: Device, record: bool) -> Job:
    """The job for a model; to ``record``, without the limits that compare with a baseline.

    Raises ``RuntimeFailure`` for a limit that the device cannot judge, for none at all, and for a missing file.
    """
    limits = model.limits_on(device.name)
    counts = counts_instructions(device)
    if not limits and not record:
        devices = ", ".join(model.by_device)
        raise RuntimeFailure(f"{budget.path}: {model.name} has no limit on {device.name}; it has some on {devices}.")
    for limit in limits:
        instructions = limit.kind.key.startswith("instructions")
        if counts and limit.kind.evidence >= Evidence.MEMORY:
            lacks = "clock" if limit.kind.evidence is Evidence.TIMED else "memory of its own"
            raise RuntimeFailure(
                f"{budget.path}: {limit.key} of {model.name} cannot be judged on {device.name}, which counts "
                f"instructions and has no {lacks}; put it under the devices that have, and limit instructions here."
            )
        if instructions and not counts:
            raise RuntimeFailure(
                f"{budget.path}: {limit.key} of {model.name} cannot be judged on {device.name}, which measures time; "
                "put it under an emulated device."
            )
    if record:
        limits = tuple(limit for limit in limits if not limit.kind.key.endswith("_vs_baseline"))
    least = (Evidence.LOADED if counts else Evidence.TIMED) if record else Evidence.FILE
    job = Job(model, limits, max([least, *(limit.kind.evidence for limit in limits)]))
    for file in job.files:
        backend(file)
        if not file.is_file():
            raise RuntimeFailure(f"{budget.path}: {file} of {model.name} does not exist; export it, or mend the path.")
    return job
