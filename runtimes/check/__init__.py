"""Budgets for model files: limits per model and device, judged by measurement, with a third verdict for honest doubt.

budget = read_budget("budget.toml")
with closing(open_device(budget.device)) as device:
    outcome = check(budget, device)
outcome.verdict                      # pass, fail or inconclusive
"""

from __future__ import annotations

from edgekron.runtimes.check.baseline import Baseline, BaselineEntry, read_baseline
from edgekron.runtimes.check.budget import Budget, Effort, ModelBudget, read_budget
from edgekron.runtimes.check.checker import check
from edgekron.runtimes.check.limits import KINDS, Kind, Limit
from edgekron.runtimes.check.outcome import ModelOutcome, Outcome
from edgekron.runtimes.check.outputs import junit, markdown, sentence
from edgekron.runtimes.check.verdict import Judgement, Verdict

__all__ = [
    "KINDS",
    "Baseline",
    "BaselineEntry",
    "Budget",
    "Effort",
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
