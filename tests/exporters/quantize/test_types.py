"""Files in every type, run in both runtimes: how close they are, what they store, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekron.algebra import FactorNetwork
from edgekron.cli import export as command
from edgekron.errors import UserError
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.export import rebalanced
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.quantize import DTYPES, Quantization
from edgekron.exporters.quantize.forms import forms_of
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.read import read
from edgekron.exporters.verify import difference, open_version
from edgekron.graph import Factorized, Hub, load
from edgekron.runtimes import Measuring, RuntimeFailure, bench, top1
from edgekron.runtimes.agent import backends

SHAPE = (3, 12, 10)
TARGETS = ("onnx", "tflite")


class Net(nn.Module):
    """A residual network with a depthwise and a strided convolution, pooling and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.wide(x))
        x = torch.relu(self.down(torch.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


KRONECKER = FactorNetwork("r f1 c1, r f2 c2 h1 w1", {"r": 3, "f1": 4, "f2": 4, "c1": 4, "c2": 4, "h1": 3, "w1": 3})
SPATIAL = FactorNetwork("r f1 w1, r c1 h1", {"r": 24, "f1": 32, "c1": 16, "h1": 3, "w1": 3})


@pytest.fixture(scope="module")
def hub() -> Hub:
    torch.manual_seed(0)
    made = load(Net().eval(), input_shape=SHAPE)
    rng = np.random.default_rng(0)
    for name, network in (("wide", KRONECKER), ("down", SPATIAL)):
        layer = made.layer(name)
        tensors = tuple(
            (0.25 * rng.standard_normal(network.factor_shape(i))).astype(np.float32) for i in range(len(network.axes))
        )
        made.factorize(name, Factorized(name, "conv", network, tensors, layer.bias, (1, 0), layer.geometry))
    return made


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((32, *SHAPE)).astype(np.float32) for _ in range(2)]


def written(hub: Hub, folder: Path, target: str, how: Quantization) -> Path:
    path = folder / f"net.{target}"
    export(hub, path, ExportSettings(how), force=True)
    return path


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    return backends.run_nchw(backends.load(path), x)[0]


def reference(hub: Hub, x: np.ndarray) -> np.ndarray:
    return next(iter(open_version(hub, inner=False).run(x).values()))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("dtype", "integer_io", "least"),
    [("float16", False, 60.0), ("int8-dynamic", False, 30.0), ("int8", False, 25.0), ("int8", True, 25.0)],
)
def test_every_type_is_close(
    hub: Hub, images: list[np.ndarray], tmp_path: Path, target: str, dtype: str, integer_io: bool, least: float
) -> None:
    how = Quantization(dtype, images if dtype == "int8" else (), integer_io)
    path = written(hub, tmp_path, target, how)
    x = images[1]
    found = difference("y", "images", reference(hub, x), outputs(path, x))
    assert found.sqnr_db >= least
    assert found.agreement is not None
    assert found.agreement >= 0.9
    session = backends.load(path)
    wanted = ("uint8" if target == "onnx" else "int8") if integer_io else "float32"
    assert [session.input.dtype, session.outputs[0].dtype] == [wanted, wanted]
    # The same bytes again.
    assert written(hub, tmp_path / "again", target, how).read_bytes() == path.read_bytes()
    version = open_version(path)
    assert version.precision == ("float16" if dtype == "float16" else "int8")
    assert version.inner
    run = version.run(x)
    np.testing.assert_array_equal(run[version.outputs[0]], outputs(path, x))


@pytest.mark.parametrize("target", TARGETS)
def test_files_shrink_with_their_types(hub: Hub, images: list[np.ndarray], tmp_path: Path, target: str) -> None:
    bytes_of = {}
    for dtype in DTYPES[1:]:
        path = written(hub, tmp_path, target, Quantization(dtype, images if dtype == "int8" else ()))
        if target == "tflite":
            contents = read(path.read_bytes())
            bytes_of[dtype] = contents.constant_bytes
            assert contents.problems() == []
        else:
            weights = [t for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
            bytes_of[dtype] = sum(onnx.numpy_helper.to_array(t).nbytes for t in weights)
    assert bytes_of["int8-dynamic"] <= 0.7 * bytes_of["float16"]
    assert bytes_of["int8"] <= 0.75 * bytes_of["float16"]


def test_integer_onnx_files_compute_in_integers(hub: Hub, images: list[np.ndarray], tmp_path: Path) -> None:
    proto = onnx.load(written(hub, tmp_path, "onnx", Quantization("int8", images)))
    made = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            assert {made[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}, node.name
    counts = Counter(node.op_type for node in proto.graph.node)
    assert counts["Conv"] == 6
    said = {f"edgekron.{key}" for key in ("version", "opset", "identity")}
    assert {entry.key for entry in proto.metadata_props} == said
    assert proto.producer_name == "edgekron"


def test_small_weights_are_folded_when_a_file_is_loaded(hub: Hub, tmp_path: Path) -> None:
    import onnxruntime

    for dtype in ("float16", "int8-dynamic"):
        path = written(hub, tmp_path, "onnx", Quantization(dtype))
        assert "Cast" in {node.op_type for node in onnx.load(path).graph.node}
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        run = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
        assert not run & {"Cast", "Mul", "DequantizeLinear", "Tile"}


def test_integer_tflite_files_are_integers_throughout(hub: Hub, images: list[np.ndarray], tmp_path: Path) -> None:
    histogram = read(written(hub, tmp_path, "tflite", Quantization("int8", images)).read_bytes()).histogram
    assert (histogram["QUANTIZE"], histogram["DEQUANTIZE"]) == (1, 1)
    whole = read(written(hub, tmp_path, "tflite", Quantization("int8", images, integer_io=True)).read_bytes())
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(whole.histogram)


@pytest.mark.parametrize("target", TARGETS)
def test_integer_files_are_measured_and_evaluated(
    hub: Hub, images: list[np.ndarray], tmp_path: Path, target: str
) -> None:
    path = written(hub, tmp_path, target, Quantization("int8", images, integer_io=True))
    labels = outputs(path, images[0]).argmax(axis=1)
    assert top1(path, [(images[0], labels)]).top1 == 1.0
    assert len(bench([path], Measuring(rounds=1, seconds=0.01)).files) == 1


def test_damaged_scales_are_refused(hub: Hub, images: list[np.ndarray], tmp_path: Path) -> None:
    path = written(hub, tmp_path, "onnx", Quantization("int8", images, integer_io=True))
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"edgekron.quantization": "{"})
    onnx.save(proto, path)
    with pytest.raises(RuntimeFailure, match=r"metadata edgekron\.quantization is damaged"):
        backends.load(path)


def test_forms_follow_the_type_and_the_plan(hub: Hub) -> None:
    assert forms_of(hub, "onnx", "float32")[0]["wide"] == ("fold", "matmul")
    assert forms_of(hub, "onnx", "int8-dynamic")[0]["wide"] == ("fold", "matmul")
    for target in TARGETS:
        chosen, notices = forms_of(hub, target, "int8")
        assert chosen["wide"] == ("fold", "mix")
        assert notices == []
    planned = hub.copy()
    factorized = planned.layer("wide").factorized
    assert factorized is not None
    for forms, wanted in (
        (("grouped", "matmul"), ("grouped", "mix")),
        (("grouped", "grouped"), ("grouped", "grouped")),
        (("fold", "matmul"), ("fold", "mix")),
        (("expand",), ("dense",)),
        (("dense",), ("dense",)),
    ):
        layer = Factorized(**{**vars(factorized), "forms": {"onnx": forms, "tflite": ("grouped", "fold")}})
        planned.factorize("wide", layer)
        chosen, notices = forms_of(planned, "onnx", "int8")
        assert chosen["wide"] == wanted
        said = forms in {("grouped", "matmul"), ("expand",)}
        assert len(notices) == said
        assert not said or "layer wide" in notices[0]
        assert forms_of(planned, "onnx", "float16")[0]["wide"] == forms
        assert forms_of(planned, "tflite", "int8")[0]["wide"] == ("grouped", "fold")


def test_rebalancing_a_hub_changes_no_output(hub: Hub, images: list[np.ndarray]) -> None:
    for given in (images, []):
        after = rebalanced(hub, given)
        x = images[0][:4]
        assert difference("y", "images", reference(hub, x), reference(after, x)).relative <= 1e-5
        one, two = (h.layer("down").factorized for h in (hub, after))
        assert one is not None
        assert two is not None
        assert np.abs(one.tensors[0] - two.tensors[0]).max() > 0.01


def test_bad_requests_are_one_sentence(hub: Hub, images: list[np.ndarray], tmp_path: Path) -> None:
    assert command.DTYPES == DTYPES
    wrong, float16 = ExportSettings(Quantization("int8", [images[0][:, :1]])), ExportSettings(Quantization("float16"))
    cases = [
        (lambda: Quantization("int4"), "no type 'int4'"),
        (lambda: Quantization("int8"), "needs calibration images"),
        (lambda: Quantization("float16", integer_io=True), "integers need --dtype int8"),
        (lambda: Quantization("int8", [np.full((1, *SHAPE), np.nan, np.float32)]), "NaN"),
        (lambda: export(hub, tmp_path / "a.onnx", wrong), "calibration images are"),
        (lambda: export(hub, tmp_path / "a.pt", float16), "should end in"),
        (lambda: export(hub, tmp_path / "a.tflite", replace(float16, layout="nchw")), "for float32 TFLite files"),
        (lambda: export(hub, tmp_path / "a.onnx", ExportSettings(layout="nchw")), "for float32 TFLite files"),
    ]
    for act, said in cases:
        with pytest.raises(UserError, match=said):
            act()
    huge = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with torch.no_grad():
        huge[0].weight[0, 0, 0, 0] = 1e6
    for target in TARGETS:
        with pytest.raises(UserError, match="0.weight has values up to 1e.06, beyond float16"):
            export(load(huge, input_shape=SHAPE), tmp_path / f"a.{target}", float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_float32_is_the_plain_file(hub: Hub, tmp_path: Path, target: str) -> None:
    path = tmp_path / f"net.{target}"
    assert export(hub, path) == []
    plain = export_onnx(hub).SerializeToString() if target == "onnx" else export_tflite(hub)
    assert path.read_bytes() == plain


def test_dynamic_matrices_have_one_scale(hub: Hub, tmp_path: Path) -> None:
    """Runtimes up to 2.14 know a scale for each channel in convolutions alone, and give zeros elsewhere."""
    path = tmp_path / "net.tflite"
    export(hub, path, ExportSettings(Quantization("int8-dynamic")))
    contents = read(path.read_bytes())
    scales = {
        name: len(contents.graph.tensors[operator.inputs[1]].quantization.scale)
        for name, operator in zip(contents.operators, contents.graph.operators, strict=True)
        if name in ("CONV_2D", "FULLY_CONNECTED")
    }
    assert scales["FULLY_CONNECTED"] == 1
    assert scales["CONV_2D"] > 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_calibrated_by_as_many(
    hub: Hub, images: list[np.ndarray], tmp_path: Path, target: str, batch: int
) -> None:
    proto = export_onnx(hub.dense())
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(proto, tmp_path / "fixed.onnx")
    fixed, path = load(tmp_path / "fixed.onnx"), tmp_path / f"int8.{target}"
    export(fixed, path, ExportSettings(Quantization("int8", images), batch=batch))
    x = images[0][: 2 * batch]
    assert difference("y", "images", reference(hub, x), outputs(path, x)).sqnr_db >= 25
