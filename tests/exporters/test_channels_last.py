"""Networks whose images are [N, H, W, C], and networks that take the bytes of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekron.compression.compressor import compress
from edgekron.errors import DataError, UserError
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.entries import entries_of
from edgekron.exporters.quantize import Quantization
from edgekron.exporters.tflite.read import read
from edgekron.exporters.verify import cases, compare, open_version
from edgekron.graph import Hub, load
from edgekron.models import datasets
from edgekron.runtimes import load as open_file
from edgekron.runtimes import run_nchw, top1

SIZE = (6, 10)


@pytest.fixture(params=["float32", "uint8"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """[N, 6, 10, 3] to [N, 6, 10, 5], and the mean of the latter [N, 5]."""
    rng = np.random.default_rng(0)
    kind = TensorProto.FLOAT if request.param == "float32" else TensorProto.UINT8
    arrays = {
        "k": np.float32(1 / 255),
        "w": rng.normal(size=(16, 3, 3, 3)).astype("f") / 5,
        "v": rng.normal(size=(5, 16, 3, 3)).astype("f") / 12,
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "k"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["b"], pads=[1] * 4),
        helper.make_node("Transpose", ["b"], ["y"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["g"]),
        helper.make_node("Flatten", ["g"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", *SIZE, 3])],
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *SIZE, 5]),
        ],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    file = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for index in range(6):
        folder = tmp_path / "photos" / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def batch(hub: Hub, photos: Path) -> np.ndarray:
    (entry,) = hub.inputs
    images = datasets.load(str(photos), shape=entry.image, dtype=entry.dtype).fed_to(entry)
    (x, _), *_ = images.batches(8)
    assert x.shape == (6, *SIZE, 3)
    assert x.dtype == entry.dtype
    return x


def test_a_file_has_the_axes_of_its_source(path: Path, tmp_path: Path) -> None:
    hub, shapes = load(path), {}
    for layout in ("nhwc", "nchw"):
        export(hub, tmp_path / f"{layout}.tflite", ExportSettings(layout=layout))
        contents = read((tmp_path / f"{layout}.tflite").read_bytes())
        ends = [*contents.graph.inputs, *contents.graph.outputs]
        shapes[layout] = [[int(n) for n in contents.graph.tensors[i].shape] for i in ends]
        assert ("TRANSPOSE" in contents.operators) == (layout == "nchw")
        assert [entry.channels for entry in entries_of(tmp_path / f"{layout}.tflite")] == [3]
        rows, _ = compare(
            open_version(hub),
            open_version(tmp_path / f"{layout}.tflite"),
            cases(hub.input_shape, None, dtype=hub.inputs[0].dtype),
            {},
        )
        assert max(row.relative for row in rows) < 1e-5
    assert shapes["nhwc"] == [[1, *SIZE, 3], [1, 5], [1, *SIZE, 5]]
    assert shapes["nchw"] == [[1, 3, *SIZE], [1, 5], [1, 5, *SIZE]]


def test_images_go_through_compression_and_quantization(path: Path, photos: Path, tmp_path: Path) -> None:
    hub = load(path)
    x = batch(hub, photos)
    result = compress(hub, model="net", ratios={"macs": 1.2}, data=[x], method="low-rank")
    assert result.report.macs.ratio >= 1.2
    exact = run_nchw(open_file(path), x)
    for suffix in ("onnx", "tflite"):
        for dtype, bound in (("float32", 1e-5), ("int8", 0.1)):
            file = tmp_path / f"{dtype}.{suffix}"
            export(hub, file, ExportSettings(Quantization(dtype, [x] if dtype == "int8" else [])))
            for wanted, given in zip(exact, run_nchw(open_file(file), x), strict=True):
                assert given.shape == wanted.shape
                assert np.abs(given - wanted).max() < bound * np.abs(wanted).max()
            images = datasets.load(str(photos), shape=entries_of(file)[0].image).fed_to(entries_of(file)[0])
            assert top1(file, images.batches(4)).total == 6


def test_arrays_of_another_type_are_refused(path: Path, photos: Path, tmp_path: Path) -> None:
    hub = load(path)
    other = batch(hub, photos).astype(np.int32)
    with pytest.raises(UserError, match=r"the input x is .*, and arrays of int32 were given"):
        compress(hub, model="net", ratios={"macs": 1.2}, data=[other], method="low-rank")
    np.savez(tmp_path / "i.npz", inputs=other)
    with pytest.raises(DataError, match=r"type int32; .* \[N, ...\] is needed"):
        datasets.load(str(tmp_path / "i.npz"), dtype=hub.inputs[0].dtype)
