"""Budgets for model files: limits per model and device, judged by measurement, with a third verdict for honest doubt.

    budget = read_budget("budget.toml")
    with closing(open_device(budget.device)) as device:
        outcome = check(budget, device)
    outcome.verdict                      # pass, fail or inconclusive

``budget`` reads the limits of ``limits``, ``checker`` measures ``blocks`` for them as often as ``sampling`` says,
``estimates`` makes one interval of the blocks, ``verdict`` judges the interval, ``outcome`` and ``outputs`` show it.
"""

from __future__ import annotations

from .baseline import Baseline, BaselineEntry, read_baseline
from .budget import Budget, CheckEffort, ModelBudget, read_budget
from .checker import check
from .limits import KINDS, Kind, Limit
from .outcome import ModelOutcome, Outcome
from .outputs import junit, markdown, sentence
from .verdict import Judgement, Verdict

__all__ = [
    "KINDS",
    "Baseline",
    "BaselineEntry",
    "Budget",
    "CheckEffort",
    "Judgement",
    "Kind",
    "Limit",
    "ModelBudget",
    "ModelOutcome",
    "Outcome",
    "Verdict",
    "check",
    "junit",
    "markdown",
    "read_baseline",
    "read_budget",
    "sentence",
]
