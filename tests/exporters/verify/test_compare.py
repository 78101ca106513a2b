"""The measures of a difference, and versions that are compared: with and without their inner values, as a pair."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify import cases, compare, difference, open_version, walk
from edgekron.exporters.verify.compare import Sums
from edgekron.graph import load

from .conftest import SHAPE, Family


@pytest.mark.parametrize("kind", ["hub", "onnx", "tflite"])
def test_outputs_are_the_same_without_inner_values(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    hub = load(module.eval(), input_shape=(3, 8, 8))
    path = tmp_path / f"network.{kind}"
    if kind != "hub":
        {"onnx": export_onnx, "tflite": export_tflite}[kind](hub, path)
    source = hub if kind == "hub" else path
    whole, outputs = open_version(source), open_version(source, inner=False)
    assert whole.inner
    assert not outputs.inner
    for _, x in cases((3, 8, 8), None):
        assert set(outputs.run(x)) == set(outputs.outputs)
    ends, layers = compare(whole, outputs, cases((3, 8, 8), None), {})
    assert max(end.relative for end in ends) == 0.0
    assert {row.name for row in layers} <= set(outputs.outputs)
    assert len(ends) == 6


def test_sums_over_pieces_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((9, 4)).astype(np.float32)
    candidate = reference + rng.standard_normal((9, 4)).astype(np.float32)
    whole, pieces = difference("y", "case", reference, candidate), Sums()
    for part in (slice(0, 4), slice(4, 8), slice(8, 9)):
        pieces.add(reference[part], candidate[part])
    found = pieces.difference("y", "case")
    assert pieces.pieces == 3
    assert (found.max_abs, found.relative, found.agreement) == (whole.max_abs, whole.relative, whole.agreement)
    assert (found.sqnr_db, found.cosine) == pytest.approx((whole.sqnr_db, whole.cosine), rel=1e-12)
    # The two measures of one noise.
    assert pieces.error == pytest.approx(10 ** (-found.sqnr_db / 20), rel=1e-12)
    assert pieces.error == pytest.approx(np.linalg.norm(candidate - reference) / np.linalg.norm(reference), rel=1e-6)


@pytest.mark.parametrize(
    ("reference", "candidate", "error"), [(0, 0, 0), (0, 1, math.inf), (1, math.nan, math.inf), (1, math.inf, math.inf)]
)
def test_an_error_of_nothing_and_of_what_is_not_finite(reference: float, candidate: float, error: float) -> None:
    sums = Sums()
    sums.add(np.full((1, 2), reference, np.float32), np.full((1, 2), candidate, np.float32))
    assert sums.error == error
    assert sums.difference("y", "case").relative == error


def test_values_of_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"y has shape \[1, 2\] in the reference and \[1, 3\] in the candidate"):
        difference("y", "case", np.zeros((1, 2)), np.zeros((1, 3)))


@pytest.mark.parametrize("kind", ["out.onnx", "int8.tflite"])
def test_a_pair_is_a_chain_of_two(family: Family, kind: str) -> None:
    """The walk compares a pair as ``compare`` does, and finds the layers besides."""
    inputs = list(cases(SHAPE, family.images))
    reference, candidate = versions = family.named("hub", kind)
    chain = walk(versions, inputs, replace(family.names(), titles={"x": "y"}), images=True)
    (step,) = chain.steps
    assert chain.pair
    whole = inputs if kind == "out.onnx" else inputs[-1:]
    ends, layers = compare(reference.version, candidate.version, whole, {})
    assert step.outputs == ends
    assert step.within == layers
    assert step.real == step.since == ends[-1:]
    assert [row.case for row in ends] == [case for case, _ in whole]
    assert {part.layer for part in step.parts} >= {"first", "second", "last"}
    # A chain of more compares the values within on the main case alone.
    longer = walk([*versions, *family.named("out.tflite")], inputs, family.names(), images=True)
    assert longer.steps[0].outputs == ends
    assert longer.steps[0].within == []
