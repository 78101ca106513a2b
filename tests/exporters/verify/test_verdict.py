"""Which bounds judge which steps of a chain, for every kind of change, and what of it is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekron.errors import UserError
from edgekron.exporters.verify import KINDS, Bounds, Difference, Link, Step, VersionChain, check_bounds, judge, notes
from edgekron.exporters.verify.links import CONVERSION, QUANTIZATION
from edgekron.graph.identity import TUNING

ALL = Bounds(tolerance=0.5, sqnr=20, agreement=90)


def row(case: str, relative: float, sqnr: float, agreement: float | None = 0.95) -> Difference:
    return Difference("y", case, relative, relative, sqnr, 1.0, agreement)


def chain(*kinds: tuple[str, ...], images: bool = True, agreement: float | None = 0.95) -> VersionChain:
    """Versions v0, v1, ... in which step i is of ``kinds[i]``; the error is 0.1 on random input, 0.2 on images."""
    real = [row("images", 0.2, 30, agreement)]
    steps = [
        Step(
            title=f"v{i + 1}",
            against=f"v{i}",
            link=Link(i, i + 1, each),
            outputs=[row("random", 0.1, 10, agreement), *real],
            real=real,
            since=[row("images", 0.4, 15, agreement)],
            within=[],
            parts=[],
            judge=None,
        )
        for i, each in enumerate(kinds)
    ]
    precision = "int8" if QUANTIZATION in kinds[-1] else "float32"
    versions = [
        SimpleNamespace(title=f"v{i}", version=SimpleNamespace(precision=precision)) for i in range(len(steps) + 1)
    ]
    return VersionChain(versions, steps, ["layer"], "images", images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_a_chain_is_judged_by_its_kind(kind: str) -> None:
    verdict = judge(chain((kind,), (kind, "other")), ALL)
    first = [measure.key for measure in verdict.measures if measure.text.startswith("v1 from v0")]
    assert first == {CONVERSION: ["worst_relative"], QUANTIZATION: ["sqnr_db", "agreement"]}.get(kind, [])
    # The second step does two things, so that only the whole chain up to it is judged.
    assert [(m.key, m.value) for m in verdict.measures[len(first) :]] == [("sqnr_db", 15), ("agreement", 95)]
    assert all(measure.text.startswith("v2 from v0") for measure in verdict.measures[len(first) :])
    assert not verdict.passed
    assert [line for line in verdict.lines() if "BELOW" in line] == ["v2 from v0, SQNR on the images 15.0 dB: BELOW 20"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_judged_by_every_bound(kind: str) -> None:
    verdict = judge(chain((kind,)), ALL)
    found = {measure.key: measure.value for measure in verdict.measures}
    assert found == {"worst_relative": 0.2, "sqnr_db": 30, "agreement": 95}
    assert verdict.passed
    assert len(verdict.lines()) == 3
    assert not judge(chain((kind,)), Bounds(tolerance=0.15)).passed
    assert not judge(chain((kind,)), Bounds(sqnr=31)).passed
    # Without bounds, files in float are told by their error, smaller types by what they are judged by.
    told = [line.split()[0] for line in judge(chain((kind,)), Bounds()).lines()]
    assert told == (["SQNR", "the"] if kind == QUANTIZATION else ["worst"])


def test_bounds_that_nothing_is_judged_by_are_refused() -> None:
    with pytest.raises(UserError, match="leave --tolerance out"):
        check_bounds([Link(0, 1, (QUANTIZATION,)), Link(1, 2, (CONVERSION, QUANTIZATION))], Bounds(tolerance=1))
    for links in ([Link(0, 1, (QUANTIZATION,))], [Link(0, 1, (QUANTIZATION,)), Link(0, 2, (CONVERSION,))]):
        check_bounds(links, Bounds(tolerance=1))
    for kinds in ([(CONVERSION,)], [(CONVERSION,), (QUANTIZATION,)]):
        with pytest.raises(UserError, match="no output is a list of scores"):
            judge(chain(*kinds, agreement=None), Bounds(agreement=90))


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_the_function_wants_real_images(kind: str) -> None:
    several = chain((kind,), (CONVERSION,), images=False)
    said = [f"on random input; {kind} is judged on real images: give --data."]
    assert notes(several)[2:] == ([] if kind in (CONVERSION, TUNING) else said)
    assert len(notes(chain((kind,), (CONVERSION,)))) == 2
