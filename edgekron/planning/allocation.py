"""Chooses one candidate for each layer: the least total error within the budgets.

A multiple-choice knapsack, solved to optimality (within ``GAP``) by the HiGHS mixed-integer solver of SciPy:

    minimise sum over layers of weight * error,  subject to  sum of cost <= budget for each cost,  one candidate a
    layer.

Among choices that are equally good the solver takes any: where all errors are zero, or equal, layers may save far more
than the budget asks for. So each layer then goes back to the candidate that saves least, as long as the total error
does not rise and the budget is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from edgekron.errors import UserError
from edgekron.graph.reasons import kinds_of

from .candidates import Candidate

if TYPE_CHECKING:
    from edgekron.graph import Layer

GAP = 1e-3
#: The costs that a budget can be set on, with the name that messages use.
COSTS = {"macs": "MACs", "parameters": "parameters"}


def allocate(
    choices: Mapping[str, Sequence[Candidate]],
    weights: Mapping[str, float],
    fixed: Mapping[str, int],
    ratios: Mapping[str, float],
    frozen: Sequence[str] = (),
) -> dict[str, Candidate]:
    """The chosen candidate of each layer.

    ``ratios`` maps "macs" or "parameters" to how many times fewer the whole network is to have; ``fixed`` is what the
    rest of the network costs, and ``frozen`` the reasons why each of its layers stays dense. The first candidate of
    each layer is the dense one. Raises ``UserError`` naming the best ratio that can be reached, and why.
    """
    names = list(choices)
    flat = [(name, candidate) for name in names for candidate in choices[name]]
    rows, bounds = [], []
    for cost, ratio in ratios.items():
        dense = fixed[cost] + sum(int(getattr(choices[name][0], cost)) for name in names)
        least = fixed[cost] + sum(min(int(getattr(c, cost)) for c in choices[name]) for name in names)
        if least * ratio > dense:
            raise UserError(
                f"{ratio:g} times fewer {COSTS[cost]} cannot be reached; "
                f"the best that this network can is {dense / least:.2f}: {_why(choices, frozen)}."
            )
        rows.append([getattr(candidate, cost) / dense for _, candidate in flat])
        bounds.append((dense / ratio - fixed[cost]) / dense)
    if not flat:
        return {}
    # The solver's tolerances are absolute. An output that is worse than its own mean is lost: how much worse does not
    # matter, and must not drown the differences between good candidates.
    objective = np.array([weights[name] * min(candidate.error, 1.0) for name, candidate in flat])
    objective /= max(float(objective.max()), 1e-30)
    one_each = np.array([[float(name == owner) for owner, _ in flat] for name in names])
    constraints = [LinearConstraint(one_each, 1.0, 1.0)]
    if rows:
        constraints.append(LinearConstraint(np.array(rows), -np.inf, np.array(bounds)))
    solution = milp(
        objective,
        constraints=constraints,
        integrality=np.ones(len(flat)),
        bounds=Bounds(0.0, 1.0),
        options={"mip_rel_gap": GAP, "time_limit": 30.0},
    )
    if solution.x is None and solution.status == 1:
        raise UserError("no choice of ranks was found in time; ask for a smaller ratio, or for one of the two only.")
    if solution.x is None:
        wanted = " and ".join(f"{ratio:g} times fewer {COSTS[cost]}" for cost, ratio in ratios.items())
        raise UserError(f"{wanted} cannot be reached together; ask for less of one of them.")
    chosen = {name: candidate for (name, candidate), taken in zip(flat, solution.x, strict=True) if taken > 0.5}
    return _saving_least(chosen, choices, weights, fixed, ratios)


def _saving_least(
    chosen: dict[str, Candidate],
    choices: Mapping[str, Sequence[Candidate]],
    weights: Mapping[str, float],
    fixed: Mapping[str, int],
    ratios: Mapping[str, float],
) -> dict[str, Candidate]:
    """``chosen`` with every layer at the candidate of no larger error that saves least within the budget.

    The step that gives back most of the budget goes first, so what is left over is less than any step.
    """
    dense = {cost: fixed[cost] + sum(getattr(choices[name][0], cost) for name in choices) for cost in ratios}

    def loss(name: str, one: Candidate) -> float:
        return weights[name] * min(one.error, 1.0)

    while True:
        room = {
            cost: dense[cost] / ratio - fixed[cost] - sum(getattr(one, cost) for one in chosen.values())
            for cost, ratio in ratios.items()
        }
        steps = []
        for name, now in chosen.items():
            for one in choices[name]:
                more = {cost: getattr(one, cost) - getattr(now, cost) for cost in ratios}
                given = sum(more[cost] / dense[cost] for cost in ratios)
                if given > 0 and loss(name, one) <= loss(name, now) and all(more[c] <= room[c] for c in ratios):
                    steps.append((given, name, one))
        if not steps:
            return chosen
        _, name, one = max(steps, key=lambda step: step[0])
        chosen[name] = one


def check_sizes(layers: Iterable[Layer], ratios: Mapping[str, float]) -> None:
    """Raises ``UserError`` for a ratio of MACs in a network with layers whose MACs are not known."""
    unknown = [layer.name for layer in layers if not layer.macs_known]
    if "macs" in ratios and unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            f"the MACs of {', '.join(unknown[:3])}{more} are not known, as a size in the graph is not, so no ratio of "
            "MACs can be promised; export the model with fixed sizes, or ask for parameters (--params)."
        )


def _why(choices: Mapping[str, Sequence[Candidate]], frozen: Sequence[str]) -> str:
    """How many layers can be factorized, and how many stay dense for which kind of reason."""
    able = [
        "can be factorized" if len(found) > 1 else "has no structure that saves anything" for found in choices.values()
    ]
    return kinds_of([*able, *frozen]) or "it has no layers"
