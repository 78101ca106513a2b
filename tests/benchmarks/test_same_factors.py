"""The comparison of two checkouts, on a small graph and on made-up results: compressing itself takes minutes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.common.record import ROOT
from benchmarks.same_factors import Checkout, compared, table, tensors
from edgekron.errors import UserError

SAME = {"plan": "a", "layers": {"conv": {"conv.factor0": "1", "conv.bias": "2"}}, "rest": {"view": "3"}, "seconds": 1.0}


def graph(path, **arrays):
    """A graph of one factorized layer with two factors and a bias, and a constant beside it."""
    tensors = [numpy_helper.from_array(array, name.replace("_", ".")) for name, array in arrays.items()]
    layer = helper.make_node("conv", ["x", "conv.factor0", "conv.bias"], ["y"], domain="edgekron")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph([layer], "g", ends[:1], ends[1:], tensors)), path)
    return path


def test_one_bit_of_a_factor_is_seen(tmp_path):
    arrays = {"conv_factor0": np.float32([1, 2]), "conv_bias": np.float32([3]), "view": np.int64([1, -1])}
    first, rest = tensors(graph(tmp_path / "a.onnx", **arrays))
    assert first.keys() == {"conv"}
    assert first["conv"].keys() == {"conv.factor0", "conv.bias"}
    assert rest.keys() == {"view"}
    again, _ = tensors(graph(tmp_path / "b.onnx", **arrays))
    assert again == first
    arrays["conv_factor0"] = np.nextafter(arrays["conv_factor0"], np.float32(9))
    other, same_rest = tensors(graph(tmp_path / "c.onnx", **arrays))
    assert same_rest == rest
    assert other["conv"]["conv.bias"] == first["conv"]["conv.bias"]
    assert other["conv"]["conv.factor0"] != first["conv"]["conv.factor0"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "| same | byte-identical | same |"),
        ({"plan": "b"}, "| DIFFERS | byte-identical | same |"),
        ({"layers": {"conv": {"conv.factor0": "9", "conv.bias": "2"}}}, "| same | DIFFER in conv | same |"),
        ({"layers": SAME["layers"] | {"fc": {}}}, "| same | DIFFER in fc | same |"),
        ({"rest": {}}, "| same | byte-identical | DIFFERS |"),
    ],
)
def test_what_differs_is_said(change, words):
    row = {"network": "sixconv", "family": "cp", **compared(SAME, SAME | change)}
    assert row["same"] == (not change)
    assert words in table([row])


def test_a_refusal_is_the_same_only_in_the_same_words():
    refusals = [{"refused": text, "seconds": 1.0} for text in ("no", "no", "never")]
    assert compared(*refusals[:2])["same"]
    assert not compared(*refusals[1:])["same"]
    assert not compared(refusals[0], SAME)["same"]


def test_a_checkout_is_imported_as_it_is_and_left_as_it_was(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "edgekron").rglob("*.py")}
    Checkout(ROOT, tmp_path)
    (site,) = tmp_path.glob("*/site/edgekron")
    assert {path.name for path in site.iterdir()} >= {"cli", "exporters", "runtimes", "models"}
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "edgekron").rglob("*.py")} == before
    with pytest.raises(UserError, match="is no checkout"):
        Checkout(tmp_path, tmp_path)
