"""What is tried: different ways, all exact, the layer's own first."""

from __future__ import annotations

import pytest

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.algebra.lowering import default_forms, lower, valid_forms
from edgekron.exporters.tuning.candidates import LIMIT, FormCandidate, candidates

from .conftest import KRONECKER, SAME, subject

LOW_RANK = FactorNetwork("r1 f1 w1, r1 c1 h1", {"r1": 6, "f1": 16, "w1": 3, "c1": 16, "h1": 3})
CP = FactorNetwork("f1 r1, r1 h1, r1 w1, c1 r1", {"f1": 16, "r1": 8, "h1": 3, "w1": 3, "c1": 16})
TRAIN = FactorNetwork(
    "h1 w1 r1, r1 c1 f1 r2, r2 c2 f2", {"h1": 3, "w1": 3, "r1": 4, "c1": 4, "f1": 4, "r2": 4, "c2": 4, "f2": 4}
)
LAYERS = {
    "kronecker": subject(),
    "kronecker, strided": subject(geometry=Geometry((2, 2), padding=((1, 1), (1, 1)))),
    "low rank": subject(LOW_RANK),
    "cp": subject(CP),
    "train": subject(TRAIN),
}


@pytest.mark.parametrize("target", ["onnx", "tflite"])
@pytest.mark.parametrize("name", LAYERS)
def test_ways_are_different_and_valid(name, target):
    one = LAYERS[name]
    ways = candidates(one, target)
    stages = one.network.stages(one.order, one.geometry)
    assert ways[0] == FormCandidate(one.order, default_forms(stages, target))
    assert 1 <= len(ways) <= LIMIT
    steps = {lower(one.network, way.order, one.geometry, way.forms, bias=True) for way in ways}
    assert len(steps) == len(ways)
    for way in ways:
        for stage, form in zip(one.network.stages(way.order, one.geometry), way.forms, strict=True):
            assert form in valid_forms(stage, target)


def test_the_present_form_comes_first_and_the_default_second():
    one = subject(forms={"onnx": ("grouped", "mix")})
    first, second = candidates(one, "onnx")[:2]
    assert first == FormCandidate((0, 1), ("grouped", "mix"))
    assert second == FormCandidate((0, 1), default_forms(KRONECKER.stages((0, 1), SAME), "onnx"))


def test_one_form_is_enough_where_all_are_the_same():
    assert [way.forms for way in candidates(LAYERS["low rank"], "tflite") if way.order == (1, 0)] == [
        ("grouped", "grouped")
    ]


def test_both_orders_of_a_product_are_tried():
    assert {way.order for way in candidates(subject(), "onnx")} == {(0, 1), (1, 0)}
