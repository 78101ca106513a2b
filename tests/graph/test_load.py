"""Import: the hub computes what the source computes, in a clean graph, and bad files are refused in one sentence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.errors import UserError
from edgekron.graph import Hub, load
from edgekron.models import NETWORKS, build

if TYPE_CHECKING:
    from pathlib import Path

CLEAN = {"Conv", "Relu", "Clip", "Add", "Mul", "Sigmoid", "MaxPool", "ReduceMean", "GlobalAveragePool", "Slice", "Pad",
         "Flatten", "Reshape", "Unsqueeze", "Gemm"}  # fmt: skip


def randomised(name: str) -> nn.Module:
    """A bundled network whose batch normalisations do something."""
    torch.manual_seed(0)
    module = build(name)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
    return module


def run(hub: Hub, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(hub.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {hub.input_name: x})[0]


def expect(hub: Hub, module: nn.Module, tolerance: float = 1e-5) -> None:
    """The hub's output at batch 1, 2 and 3 is the module's, relative to the largest output."""
    module.eval()
    for batch in (1, 2, 3):
        x = torch.randn(batch, *hub.input_shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            reference = module(x).numpy()
        got = run(hub, x.numpy())
        assert got.shape == reference.shape
        assert np.abs(got - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    # The exporter's tests run the larger ones.
    ["sixconv", "resnet20", "se-resnet34-cifar"],
)
def test_bundled_networks_come_out_clean_and_equal(name: str) -> None:
    module = randomised(name)
    hub = load(module, input_shape=NETWORKS[name].input_shape)
    onnx.checker.check_model(hub.proto(), full_check=True)
    assert set(Counter(node.op_type for node in hub.model.graph)) <= CLEAN
    for node in hub.model.graph:
        shape = node.outputs[0].shape
        assert shape is not None
        assert str(shape[0]) == "N"
        assert all(isinstance(d, int) for d in list(shape)[1:])
    weights = {n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {layer.name for layer in hub.layers()} == weights
    expect(hub, module)


def test_module_keeps_its_training_flags_and_batch_statistics() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Sequential(nn.ReLU()))
    module.train()
    module[3].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    hub = load(module, input_shape=(3, 8, 8))
    assert [part.training for part in module] == [True, True, True, False]
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert [node.op_type for node in hub.model.graph] == ["Conv", "Relu"]
    expect(hub, module)


@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_program(tmp_path: Path, dynamic: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    hub = load(tmp_path / "net.pt2")
    assert [layer.name for layer in hub.layers()] == ["0", "4"]
    expect(hub, module)


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("batch", [1, "batch"])
def test_onnx_files_of_any_opset_and_batch(tmp_path: Path, opset: int, batch: int | str) -> None:
    """SAME padding, MatMul + Add, batch normalisation behind Gemm, a reshape to a fixed batch."""
    random = np.random.default_rng(0)

    def array(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.uniform(0.1, 1, shape).astype(np.float32), name)

    target = np.array([1 if batch == 1 else -1, 4 * 16], np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], name="first", auto_pad="SAME_UPPER", strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Reshape", ["r", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["p"], name="second"),
            helper.make_node("Add", ["v", "p"], ["q"]),
            helper.make_node("Gemm", ["q", "g"], ["s"], name="third", transB=0),
            helper.make_node("BatchNormalization", ["s", "n1", "n2", "n3", "n4"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [array("w", 4, 3, 4, 4), numpy_helper.from_array(target, "shape"), array("m", 64, 6), array("v", 6),
         array("g", 6, 5), *(array(f"n{i}", 5) for i in (1, 2, 3, 4))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    hub = load(path)
    assert hub.model.opset_imports[""] == 20
    assert [node.op_type for node in hub.model.graph] == ["Conv", "Relu", "Reshape", "Gemm", "Gemm"]
    assert [layer.name for layer in hub.layers()] == ["first", "second", "third"]
    assert hub.layers()[0].geometry.padding == ((1, 1), (1, 1))
    assert all(layer.frozen_reason is None for layer in hub.layers())
    x = random.standard_normal((1, 3, 8, 8)).astype(np.float32)
    reference = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(run(hub, x), reference, rtol=1e-5)
    np.testing.assert_allclose(run(hub, np.concatenate([x, x, x])), np.concatenate([reference] * 3), rtol=1e-5)
    for layer in hub.layers():
        if layer.kind == "linear":
            assert layer.kernel is not None
            assert layer.kernel.shape[2:] == (1, 1)
    np.testing.assert_array_equal(hub.layers()[1].kernel[:, :, 0, 0].T, numpy_helper.to_array(graph.initializer[2]))


def test_batch_norm_stays_where_the_convolution_has_another_user() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            nn.init.uniform_(self.norm.running_var, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y + self.norm(y)

    module = Net()
    hub = load(module, input_shape=(3, 6, 6))
    assert "BatchNormalization" in {node.op_type for node in hub.model.graph}
    np.testing.assert_array_equal(hub.layer("conv").kernel, module.conv.weight.detach().numpy())
    expect(hub, module)


@pytest.mark.parametrize("batch", [1, "N"])
def test_shape_computations_and_no_ops_of_older_exporters_vanish(tmp_path: Path, batch: int | str) -> None:
    weight = np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2) / 48
    matrix = np.arange(36 * 2, dtype=np.float32).reshape(36, 2) / 72
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["i"]),
            helper.make_node("Conv", ["i", "w"], ["a"], strides=[2, 2], auto_pad="VALID"),
            helper.make_node("Dropout", ["a"], ["d"]),
            helper.make_node("Shape", ["d"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            helper.make_node("Unsqueeze", ["n", "axis"], ["u"]),
            helper.make_node("Concat", ["u", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["d", "target"], ["f"]),
            helper.make_node("Dropout", ["f"], ["e"]),
            helper.make_node("MatMul", ["e", "m"], ["p"]),
            helper.make_node("Identity", ["p"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(matrix, "m"),
            *(numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "old.onnx")
    hub = load(tmp_path / "old.onnx")
    assert [node.op_type for node in hub.model.graph] == ["Conv", "Reshape", "MatMul"]
    assert (hub.input_name, hub.output_names) == ("x", ("y",))
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    reference = np.concatenate([session.run(None, {"x": x[i : i + 1]})[0] for i in range(3)])
    np.testing.assert_allclose(run(hub, x), reference, rtol=1e-5)
    assert hub.layers()[1].frozen_reason is None
    assert hub.layers()[1].bias is None


def test_layers_that_cannot_be_factorized_say_why() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
            self.first = nn.Conv2d(4, 4, 1)
            self.second = nn.Conv2d(4, 4, 1)
            self.second.weight = self.first.weight
            self.volume = nn.Conv3d(2, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(torch.relu(self.first(self.depthwise(x))))
            return self.volume(y.unflatten(1, (2, 2)).tile(1, 1, 2, 1, 1))

    module = Net()
    hub = load(module, input_shape=(4, 6, 6))
    reasons = [layer.frozen_reason or "" for layer in hub.layers()]
    assert "depthwise" in reasons[0]
    assert reasons[1].startswith("shares its weights with ")
    assert reasons[2].startswith("shares its weights with ")
    assert "3-dimensional" in reasons[3]
    expect(hub, module)
    with pytest.raises(UserError, match="depthwise"):
        hub.factorize("depthwise", None)


def test_equal_biases_of_two_layers_stay_apart() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    nn.init.ones_(module[0].bias)
    nn.init.ones_(module[2].bias)
    hub = load(module, input_shape=(3, 8, 8))
    assert {"0.bias", "2.bias"} <= set(hub.model.graph.initializers)


def _small(path: Path, **changes: object) -> Path:
    weight = changes.get("weight", np.ones((2, 3, 1, 1), np.float32))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "layer1.conv.weight"], ["y"], name="c")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, changes.get("shape", ["n", 3, 4, 4]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h2", "w2"])],
        [numpy_helper.from_array(weight, "layer1.conv.weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", changes.get("opset", 20))]), path)
    return path


def test_bad_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = _small(tmp_path / "whole.onnx")
    assert load(whole).input_shape == (3, 4, 4)
    cut = tmp_path / "cut.onnx"
    for keep in (0, 10, 40, whole.stat().st_size // 2, whole.stat().st_size - 3):
        cut.write_bytes(whole.read_bytes()[:keep])
        with pytest.raises(UserError, match=r"cut\.onnx"):
            load(cut)
    cut.write_bytes(b"not a model at all " * 40)
    with pytest.raises(UserError, match=r"cut\.onnx"):
        load(cut)
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"nothing")
    nan = np.full((2, 3, 1, 1), np.nan, np.float32)
    for source, message in [
        (tmp_path / "missing.onnx", "there is no file"),
        (tmp_path / "missing.pt2", "there is no file"),
        (tmp_path / "model.h5", "neither a .onnx nor a .pt2"),
        (broken, "broken.pt2 is truncated"),
        (_small(tmp_path / "nan.onnx", weight=nan), "layer layer1.conv contain NaN"),
        (_small(tmp_path / "old.onnx", opset=6), "opset 6"),
        (_small(tmp_path / "open.onnx", shape=["n", 3, "h", "w"]), "open sizes"),
    ]:
        with pytest.raises(UserError, match=message):
            load(source)
    assert load(tmp_path / "open.onnx", input_shape=(3, 5, 7)).layers()[0].input_size == (5, 7)
    with pytest.raises(UserError, match="has the shape"):
        load(whole, input_shape=(3, 5, 7))


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    model = onnx.load(_small(tmp_path / "small.onnx"))
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load(path).layers()[0].kernel.sum() == 6
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"outside.onnx.*weights.bin"):
        load(path)


def test_bad_modules_are_refused() -> None:
    module = nn.Conv2d(3, 4, 3)
    with pytest.raises(UserError, match="needs the shape of its input"):
        load(module)
    with pytest.raises(UserError, match="does not take an input"):
        load(module, input_shape=(5, 8, 8))
    with pytest.raises(UserError, match="float16"):
        load(nn.Conv2d(3, 4, 3).half(), input_shape=(3, 8, 8))
    nn.init.constant_(module.weight, float("inf"))
    with pytest.raises(UserError, match="NaN or infinite"):
        load(nn.Sequential(module), input_shape=(3, 8, 8))


def test_opening_an_ordinary_file_as_a_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a hub"):
        Hub.open(_small(tmp_path / "plain.onnx"))


def test_a_hub_does_not_change_with_its_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    hub = load(module, input_shape=(3, 8, 8))
    before = hub.identity
    with torch.no_grad():
        module[0].weight.mul_(2)
    assert hub.identity == before
    module.double()
    assert hub.identity == before
