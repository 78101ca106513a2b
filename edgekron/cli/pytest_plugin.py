"""A pytest plugin: the fixture ``edgekron_check`` makes a budget a test.

    def test_sixconv_keeps_its_budget(edgekron_check):
        edgekron_check("budget.toml", model="sixconv")

A broken limit fails the test and shows the measured number. An inconclusive check skips the test with the reason; with
the ini option ``edgekron_inconclusive = fail`` the test fails. ``--edgekron-on DEVICE`` measures on another device than
the budget's. Every judgement is a property of the test in pytest's own JUnit XML.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgekron.runtimes.check import Outcome

_INCONCLUSIVE = "edgekron_inconclusive"
_WAYS = ("skip", "fail")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The device, and the result of a test whose check is inconclusive."""
    group = parser.getgroup("edgekron")
    group.addoption("--edgekron-on", metavar="DEVICE", help="where edgekron_check measures (default: the budget's)")
    parser.addini(_INCONCLUSIVE, "what an inconclusive check does to a test: skip (default) or fail", default="skip")


@pytest.fixture
def edgekron_check(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """``edgekron_check(budget, model=None, on=None)``: checks one model, or all, and gives the outcome when it passed.

    A relative ``budget`` starts from the test's folder. ``on`` is the device, before the option and the budget's own.
    """
    way = request.config.getini(_INCONCLUSIVE)
    if way not in _WAYS:
        raise pytest.UsageError(f"{_INCONCLUSIVE} is {way!r}; it must be {' or '.join(_WAYS)}.")

    def check(budget: str | Path, model: str | None = None, on: str | None = None) -> Outcome:
        from edgekron.runtimes.check import Verdict, sentence

        from .shared.checking import run_check

        device = on or request.config.getoption("--edgekron-on")
        outcome, _ = run_check(request.path.parent / budget, on=device, models=[model] if model else [])
        said: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
        for checked in outcome.models:
            for judgement in checked.judgements:
                text = f"{judgement.verdict}: {sentence(judgement)}"
                request.node.user_properties.append((f"{checked.name}.{judgement.limit.key}", text))
                said[judgement.verdict].append(f"{checked.name}: {sentence(judgement)}")
        if outcome.verdict is Verdict.FAIL:
            pytest.fail("\n".join(["the budget is broken", *said[Verdict.FAIL]]), pytrace=False)
        if outcome.verdict is Verdict.INCONCLUSIVE:
            reason = "; ".join(["the check is inconclusive", *said[Verdict.INCONCLUSIVE]])
            if way == "fail":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        return outcome

    return check
