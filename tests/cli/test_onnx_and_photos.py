"""An ONNX file and a folder of photographs, all the way through the commands; and what they say to bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Run = Callable[..., tuple[int, str, str]]

AS_TRAINED = ("--fit", "pad", "--pixels", "byte", "--channels", "bgr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net.onnx``, opset 11, batch 1, 20 x 24; ``open.onnx``, the same of any size; ``photos``, of several sizes."""
    path = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array((random.standard_normal(shape) / 20).astype(np.float32), name)
        for name, shape in {"w1": (32, 3, 3, 3), "w2": (32, 32, 3, 3), "w3": (8, 32, 1, 1)}.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["a"], pads=[1, 1, 1, 1], name="stem"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], name="body"),
        helper.make_node("LeakyRelu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["boxes"], name="head"),
    ]
    for name, size in {"net": [20, 24], "open": ["h", "w"]}.items():
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])],
            [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 8, "h2", "w2"])],
            tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
        helper.set_model_props(model, {"classes": "cat,dog"})
        onnx.save(model, path / f"{name}.onnx")
    (path / "photos").mkdir()
    for index in range(12):
        h, w = random.integers(15, 40, 2)
        Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)).save(path / "photos" / f"{index}.png")
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_detector_and_photos_go_the_whole_way(folder: Path, tmp_path: Path, run: Run) -> None:
    out, data = tmp_path / "small", ("--data", folder / "photos", *AS_TRAINED)
    code, text, _ = run("compress", folder / "net.onnx", "--ratio", 2, *data, "-o", out, "--json")
    assert code == 0
    report = json.loads(text)
    assert report["calibration_images"] == 12
    assert report["totals"]["macs"]["ratio"] >= 2
    for kind in ("onnx", "tflite"):
        file = tmp_path / f"small.{kind}"
        assert run("export", out, "--to", kind, "-o", file, *(["--opset", 17] if kind == "onnx" else []))[0] == 0
        code, text, _ = run("verify", out, file, "--tolerance", 1e-4, *data, "--json")
        assert code == 0
        assert "12 images" in {row["case"] for row in json.loads(text)["outputs"]}
    proto = onnx.load(tmp_path / "small.onnx")
    assert [entry.version for entry in proto.opset_import] == [17]
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 20, 24]
    assert {"classes": "cat,dog"}.items() <= {prop.key: prop.value for prop in proto.metadata_props}.items()


@pytest.mark.filterwarnings("ignore")
def test_an_open_size_needs_one_to_plan_for_and_stays_open(folder: Path, tmp_path: Path, run: Run) -> None:
    words = ("compress", folder / "open.onnx", "--ratio", 2, "-o", tmp_path / "small")
    code, _, error = run(*words)
    assert code == 2
    assert "--input-shape" in error
    assert run(*words, "--input-shape", "3,20,24")[0] == 0
    assert run("export", tmp_path / "small", "--to", "onnx", "-o", tmp_path / "s.onnx")[0] == 0
    proto = onnx.load(tmp_path / "s.onnx")
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, "h", "w"]
    assert run("verify", tmp_path / "small", tmp_path / "s.onnx", "--tolerance", 1e-4)[0] == 0


@pytest.mark.filterwarnings("ignore")
def test_an_open_size_can_be_fixed_to_be_measured(folder: Path, tmp_path: Path, run: Run) -> None:
    words = ("export", folder / "open.onnx", "--input-shape", "3,20,24", "--to", "onnx", "-o")
    bench = ("--rounds", 1, "--seconds", 0.05)
    assert run(*words, tmp_path / "open.onnx")[0] == 0
    code, _, error = run("bench", tmp_path / "open.onnx", *bench)
    assert code == 2
    assert "--fixed-size" in error
    assert run(*words, tmp_path / "fixed.onnx", "--fixed-size")[0] == 0
    assert run(*words, tmp_path / "small.onnx", "--fixed-size", "--dtype", "float16")[0] == 0
    for name in ("fixed", "small"):
        proto = onnx.load(tmp_path / f"{name}.onnx")
        assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 20, 24]
    assert run("bench", tmp_path / "fixed.onnx", tmp_path / "small.onnx", *bench)[0] == 0


@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path, run: Run) -> None:
    np.savez(tmp_path / "size.npz", images=np.zeros((3, 9, 9, 3), np.uint8))
    np.savez(tmp_path / "channels.npz", images=np.zeros((3, 20, 24, 1), np.uint8))
    np.savez(tmp_path / "inputs.npz", inputs=np.zeros((3, 20, 24, 3), np.float32))
    np.savez(tmp_path / "double.npz", inputs=np.zeros((3, 3, 20, 24)))
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    (tmp_path / "apart.bin").unlink()
    net, out = folder / "net.onnx", tmp_path / "out"
    before = sorted(tmp_path.iterdir())
    for source, options, said in [
        (net, ("--data", tmp_path / "size.npz"), "[3, 9, 9] (C, H, W); the model's input is [3, 20, 24]; give --fit"),
        (net, ("--data", tmp_path / "channels.npz"), "[1, 20, 24]"),
        (net, ("--data", tmp_path / "inputs.npz"), "an array named inputs, float32, of that shape"),
        (net, ("--data", tmp_path / "double.npz"), "type float64"),
        (net, ("--data", folder / "photos", "--images", 0), "at least 1"),
        (net, ("--data", folder / "photos", "--pixels", "dark"), "none of byte, unit"),
        (net, ("--pixels", "byte"), "give --data too"),
        (tmp_path / "apart.onnx", (), "apart.bin, which is missing"),
    ]:
        code, text, error = run("compress", source, "--ratio", 2, "-o", out, *options)
        assert code == 2, options
        assert said in error, error
        assert error.startswith("edgekron: error: ")
        assert (error.count("\n"), text) == (1, "")
    assert sorted(tmp_path.iterdir()) == before
