"""Joined outputs in int8: each part has the range of its own that it would have as an output of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from edgekron.errors import UserError
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import Quantization
from edgekron.exporters.tflite.read import read
from edgekron.exporters.verify import compare, open_version
from tests.detectors import DETECTORS, Apart, Free, Joined, Segmentation, hub, images

pytestmark = pytest.mark.filterwarnings("ignore")
INT8 = ExportSettings(Quantization("int8", [images(8)]))


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
@pytest.mark.parametrize("kind", DETECTORS)
def test_each_part_keeps_its_range(kind: type[nn.Module], ending: str, tmp_path: Path) -> None:
    """Scores are off by a few steps of a 255th at most, one or so in the mean, though boxes reach a hundred pixels."""
    path = tmp_path / f"net.{ending}"
    export(hub(kind), path, INT8)
    rows, _ = compare(open_version(hub(kind)), open_version(path), [("images", images(8))], {})
    parts = [row for row in rows if row.part is not None]
    assert len(parts) >= 2
    assert min(row.sqnr_db for row in parts) > 30
    for row in parts:
        if "sigmoid" in row.name:
            assert row.max_abs < 8 / 255
            assert row.sqnr_db > 38


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_parts_are_as_good_as_outputs_of_their_own(ending: str, tmp_path: Path) -> None:
    """The same layers with two outputs in place of one."""
    found = []
    for kind in (Joined, Apart):
        path = tmp_path / f"{kind.__name__}.{ending}"
        export(hub(kind), path, INT8)
        rows, _ = compare(open_version(hub(kind)), open_version(path), [("images", images(8))], {})
        found.append([row.sqnr_db for row in rows if kind is Apart or row.part is not None])
    # One network is a layer deeper.
    np.testing.assert_allclose(found[0], found[1], atol=10)


def test_only_joins_of_outputs_stay_float(tmp_path: Path) -> None:
    """A join of feature maps in front of the last layer computes in integers as before."""
    paths = [tmp_path / f"net.{ending}" for ending in ("onnx", "tflite")]
    for path in paths:
        export(hub(Segmentation), path, INT8)
    proto = onnx.load(paths[0])
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    (reader,) = (n for n in proto.graph.node if n.op_type == "QuantizeLinear" and made.get(n.input[0]) == "Concat")
    assert reader.output
    assert read(paths[1].read_bytes()).histogram["DEQUANTIZE"] == 1


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_integer_outputs_of_one_scale(ending: str, tmp_path: Path) -> None:
    """They would lose scores beside pixels, by name; parts of like range may be joined."""
    settings = ExportSettings(Quantization("int8", [images(8)], integer_io=True))
    with pytest.raises(UserError, match=r"joins values of different range: sigmoid \[:, 4:9\] .* leave the outputs"):
        export(hub(Joined), tmp_path / f"a.{ending}", settings)
    export(hub(Free), tmp_path / f"b.{ending}", settings)
    rows, _ = compare(open_version(hub(Free)), open_version(tmp_path / f"b.{ending}"), [("x", images(8))], {})
    assert not any(row.lost() for row in rows)
