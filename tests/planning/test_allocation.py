"""The allocation is optimal, and candidates are never dominated."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekron.errors import UserError
from edgekron.planning.allocation import allocate
from edgekron.planning.candidates import Candidate, undominated
from edgekron.structures import KroneckerShape

TEMPLATE = KroneckerShape((2, 1), (1, 2), (1, 1), (1, 1))
costs = st.integers(1, 60)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, list[Candidate]]:
    found = {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        dense = Candidate(100, 100, 0.0)
        others = draw(st.lists(st.tuples(costs, costs, st.floats(0.01, 1.0)), max_size=4))
        found[name] = [dense, *(Candidate(m, p, e, "kronecker", TEMPLATE, (1,)) for m, p, e in others)]
    return found


@settings(max_examples=60)
@given(layers(), st.floats(1.0, 3.0), st.floats(1.0, 3.0), st.integers(0, 50))
def test_allocation_equals_exhaustive_search(
    choices: dict[str, list[Candidate]], macs: float, parameters: float, fixed: int
) -> None:
    weights = {name: 1.0 + index for index, name in enumerate(choices)}
    ratios = {"macs": macs, "parameters": parameters}
    dense = fixed + 100 * len(choices)

    def cost(combination: tuple[Candidate, ...], unit: str) -> int:
        return fixed + sum(getattr(c, unit) for c in combination)

    def error(combination: tuple[Candidate, ...]) -> float:
        return sum(weights[name] * c.error for name, c in zip(choices, combination, strict=True))

    feasible = [
        combination
        for combination in itertools.product(*choices.values())
        if all(cost(combination, unit) <= dense / ratio * (1 + 1e-9) for unit, ratio in ratios.items())
    ]
    if not feasible:
        with pytest.raises(UserError, match="cannot be reached"):
            allocate(choices, weights, {"macs": fixed, "parameters": fixed}, ratios)
        return
    chosen = allocate(choices, weights, {"macs": fixed, "parameters": fixed}, ratios)
    taken = tuple(chosen[name] for name in choices)
    assert all(cost(taken, unit) <= dense / ratio * (1 + 1e-6) for unit, ratio in ratios.items())
    best = min(error(combination) for combination in feasible)
    assert error(taken) <= best * 1.002 + 1e-5


def test_the_best_reachable_ratio_is_named() -> None:
    choices = {"a": [Candidate(100, 100, 0.0), Candidate(20, 50, 0.5, "kronecker", TEMPLATE, (1,))]}
    with pytest.raises(UserError, match=r"10 times fewer MACs cannot be reached; .*is 3\.67"):
        allocate(choices, {"a": 1.0}, {"macs": 10, "parameters": 0}, {"macs": 10.0})


@given(st.lists(st.tuples(costs, costs, st.floats(0.0, 1.0)), min_size=1, max_size=12))
def test_undominated_keeps_a_match_for_everything(raw: list[tuple[int, int, float]]) -> None:
    found = [Candidate(*values) for values in raw]
    kept = undominated(found)
    for one in found:
        assert any(k.macs <= one.macs and k.parameters <= one.parameters and k.error <= one.error for k in kept)
    for a, b in itertools.permutations(kept, 2):
        assert not (a.macs <= b.macs and a.parameters <= b.parameters and a.error <= b.error)


@pytest.mark.parametrize("error", [0.0, 0.4, 7.0], ids=["no error", "equal errors", "all lost"])
@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["no weight", "equal weights"])
def test_of_equally_good_choices_the_one_that_saves_least_is_taken(error: float, weight: float) -> None:
    """The budget is not passed by more than the step of one layer."""
    savings = (100, 80, 60, 40, 20, 5)
    choices = {
        name: [
            Candidate(macs, macs, 0.0 if macs == 100 else error, "dense" if macs == 100 else "kronecker")
            for macs in savings
        ]
        for name in "abcdef"
    }
    chosen = allocate(choices, dict.fromkeys(choices, weight), {"macs": 10, "parameters": 0}, {"macs": 2.0})
    left = 10 + sum(one.macs for one in chosen.values())
    assert 305 - 20 < left <= 305
