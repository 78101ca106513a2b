"""Graphs that torch's exporters write for an open batch run as modules, sizes that are computed included."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.graph import Hub, load
from edgekron.modules import GraphModule
from edgekron.modules.known_sizes import with_known_sizes
from edgekron.training import reconstruct
from tests.networks import onnx_output

SHAPE = (3, 16, 16)


class Net(nn.Module):
    """Two convolutions with ``between`` them, given what the first makes and the network's input."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(F.relu(self.a(x)), x))


class Head(nn.Module):
    """A convolution, ``between``, and a fully connected layer."""

    def __init__(self, between: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(features, 5), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(F.relu(self.a(x))))


class Attention(nn.Module):
    """Patches, a token of the class that is repeated for every image, and one layer of attention with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv, self.out = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        later = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ k.transpose(-2, -1) * (c // 4) ** -0.5).masked_fill(later, -1e4)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))
        return self.head(x[:, -1])


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def shuffle(y: Tensor, _: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def windows(y: Tensor, _: Tensor) -> Tensor:
    """Windows of a rolled image as images of their own, less their means, and back; padded by reflection."""
    n, c, h, w = y.shape
    y = torch.roll(y, (2, 2), (2, 3)).view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)
    y = (y - y.mean((2, 3), keepdim=True)).view(n, h // 4, w // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5)
    return F.pad(y.reshape(n, c, h, w), (1, 1, 1, 1), mode="reflect")


def coordinates(y: Tensor, x: Tensor) -> Tensor:
    """Coordinates, zeros and ones in the size of the input, and a gate."""
    n, _, h, w = x.shape
    rows = torch.arange(h, dtype=x.dtype, device=x.device).view(1, 1, h, 1).expand(n, 1, h, w) / h
    u, v = y.chunk(2, 1)
    return torch.cat([u * torch.sigmoid(v), rows, x.new_zeros(n, 1, h, w), x.new_ones(n, 2, h, w)], 1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "view": lambda: Head(lambda y: F.max_pool2d(y, 2).view(y.size(0), -1), 512),
    "flatten": lambda: Head(lambda y: torch.flatten(F.adaptive_avg_pool2d(y, 4), 1), 128),
    "global": lambda: Head(lambda y: F.adaptive_max_pool2d(y, 1).squeeze(-1).squeeze(-1), 8),
    "scale": lambda: Net(lambda y, _: F.interpolate(y, scale_factor=2.0), stride=2),
    "size": lambda: Net(lambda y, x: F.interpolate(y, size=x.shape[2:], mode="bilinear"), stride=2),
    "size nearest": lambda: Net(lambda y, x: F.interpolate(y, size=x.shape[2:]), stride=2),
    "shuffle": lambda: Net(shuffle, groups=2),
    "windows": lambda: Net(windows),
    "coordinates": lambda: Net(coordinates),
    "attention": Attention,
    "multi-head": MultiHead,
}
EXPORTERS = ("dynamo", "trace")


@cache
def exported(name: str, exporter: str) -> onnx.ModelProto:
    """The file of a network, with an open batch."""
    torch.manual_seed(0)
    module, x = NETWORKS[name]().eval(), torch.randn(2, *SHAPE)
    logging.disable(logging.WARNING)
    try:
        if exporter == "dynamo":
            axes = ({0: torch.export.Dim("n")},)
            return torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=axes, verbose=False).model_proto
        file = io.BytesIO()
        axes = {"x": {0: "n"}, "y": {0: "n"}}
        torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes)
        return onnx.load_from_string(file.getvalue())
    finally:
        logging.disable(logging.NOTSET)


def read(name: str, exporter: str, folder: Path) -> Hub:
    onnx.save(exported(name, exporter), folder / "net.onnx")
    return load(folder / "net.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_runs_as_in_onnx_runtime_and_has_gradients(
    name: str, exporter: str, tmp_path: Path
) -> None:
    hub = read(name, exporter, tmp_path)
    module = GraphModule(hub)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, *SHAPE)).astype(np.float32)
        found, expected = module(torch.from_numpy(x)), onnx_output(hub, x)
        assert found.shape == expected.shape
        assert np.abs(found.detach().numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    found.square().sum().backward()
    assert module.layers
    for path, parameter in module.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0, path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["size", "shuffle", "windows", "multi-head"])
def test_sizes_that_do_not_depend_on_the_batch_are_constants(name: str, exporter: str, tmp_path: Path) -> None:
    """Then the graph has cuts, and a part of it runs alone."""
    hub = read(name, exporter, tmp_path)
    graph = with_known_sizes(hub.model).graph
    assert {node.op_type for node in graph}.isdisjoint({"Shape", "Range", "Where", "Equal"})
    module = GraphModule(hub)
    assert len(module.bottlenecks()) >= 3
    x = torch.randn(3, *SHAPE)
    value, begin = x, module.input_name
    for end in [*module.bottlenecks(), *hub.output_names]:
        (value,), begin = module.run({begin: value}, [end]), end
    assert torch.allclose(value, module(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["size", "attention", "coordinates"])
def test_a_compressed_graph_with_shapes_is_reconstructed(name: str, exporter: str, tmp_path: Path) -> None:
    hub = read(name, exporter, tmp_path)
    small = compress(hub, model=name, ratios={"macs": 1.2}).hub
    images = np.random.default_rng(0).standard_normal((48, *SHAPE)).astype(np.float32)
    made, blocks = reconstruct(small, hub, images, steps=40, batch=16)
    assert blocks
    wanted = onnx_output(hub, images)
    before, after = (float(np.square(onnx_output(model, images) - wanted).mean()) for model in (small, made))
    assert after < before


def test_open_sizes_stay_computed(tmp_path: Path) -> None:
    """A file with open height and width has no size that is known for good."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4, name="conv"),
        helper.make_node("Shape", ["x"], ["s"], start=2),
        helper.make_node("Shape", ["c"], ["b"], end=2),
        helper.make_node("Concat", ["b", "s"], ["t"], axis=0),
        helper.make_node("Resize", ["c", "", "", "t"], ["y"], mode="linear"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, "h", "w"]) for n, c in (("x", 3), ("y", 4))]
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "o.onnx")
    hub = load(tmp_path / "o.onnx", input_shape=SHAPE)
    module, file = GraphModule(hub), onnxruntime.InferenceSession(tmp_path / "o.onnx")
    for size in (16, 12):
        x = np.random.default_rng(size).standard_normal((2, 3, size, size)).astype(np.float32)
        (expected,) = file.run(None, {"x": x})
        assert np.abs(module(torch.from_numpy(x)).detach().numpy() - expected).max() < 1e-5


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32 if any(isinstance(n, float) for n in numbers) else np.int64)


#: Nodes from the shape ``s`` of x [N, 4, 6, 5] or from x to y, and constants.
NODES = {
    "gather": ([("Gather", ["s", "i"], ["y"], {})], {"i": vector(-1, 0)}),
    "scalar": ([("Gather", ["s", "i"], ["g"], {}), ("Mul", ["x", "f"], ["h"], {}), ("Cast", ["g"], ["k"], {"to": 1}),
                ("Div", ["h", "k"], ["y"], {})], {"i": np.array(2), "f": np.float32(2)}),
    "division": ([("Sub", ["i", "s"], ["d"], {}), ("Div", ["d", "j"], ["y"], {})],
                 {"i": vector(1, 1, 1, 9), "j": vector(2, 2, 2, 2)}),
    "remainder": ([("Sub", ["i", "s"], ["d"], {}), ("Mod", ["d", "j"], ["y"], {})],
                  {"i": vector(1, 1, 1, 9), "j": vector(3, 3, -4, 3)}),
    "slice": ([("Slice", ["s", "a", "b"], ["e"], {}), ("Sub", ["e", "o"], ["f"], {}),
               ("Slice", ["x", "z", "f", "w"], ["y"], {})],
              {"a": vector(2), "b": vector(4), "o": vector(1, 2), "z": vector(0, 0), "w": vector(2, 3)}),
    "range": ([("Gather", ["s", "i"], ["g"], {}), ("Range", ["g", "a", "b"], ["y"], {})],
              {"i": np.array(2), "a": np.array(-3), "b": np.array(-2)}),
    "constant": ([("ConstantOfShape", ["s"], ["c"], {"value": numpy_helper.from_array(vector(1.5))}),
                  ("Add", ["x", "c"], ["y"], {})], {}),
    "expand": ([("Expand", ["v", "s"], ["e"], {}), ("Mul", ["x", "e"], ["y"], {})],
               {"v": np.arange(4, dtype=np.float32).reshape(4, 1, 1)}),
    "tile": ([("Div", ["s", "s"], ["o"], {}), ("Mul", ["o", "r"], ["m"], {}), ("Tile", ["x", "m"], ["y"], {})],
             {"r": vector(1, 2, 1, 3)}),
    "reshape": ([("Gather", ["s", "i"], ["t"], {}), ("Reshape", ["x", "t"], ["y"], {})], {"i": vector(0, 3, 2, 1)}),
    "reshape by rank": ([("Size", ["s"], ["r"], {}), ("Unsqueeze", ["r", "z"], ["u"], {}),
                         ("Concat", ["m", "u"], ["t"], {"axis": 0}), ("Reshape", ["x", "t"], ["y"], {})],
                        {"z": vector(0), "m": vector(-1)}),
    "split": ([("Gather", ["s", "i"], ["g"], {}), ("Sub", ["g", "o"], ["h"], {}),
               ("Concat", ["h", "o"], ["t"], {"axis": 0}), ("Split", ["x", "t"], ["u", "y"], {"axis": 3})],
              {"i": vector(3), "o": vector(2)}),
    "pad": ([("Div", ["s", "s"], ["o"], {}), ("Mul", ["o", "r"], ["m"], {}), ("Concat", ["z", "m"], ["p"], {"axis": 0}),
             ("Pad", ["x", "p"], ["y"], {"mode": "reflect"})], {"r": vector(0, 0, 2, 1), "z": vector(0, 0, 1, 0)}),
    "where": ([("Greater", ["s", "o"], ["a"], {}), ("Equal", ["s", "o"], ["b"], {}), ("Or", ["a", "b"], ["c"], {}),
               ("Not", ["c"], ["d"], {}), ("Where", ["d", "s", "o"], ["y"], {})], {"o": vector(5, 5, 6, 5)}),
    "product": ([("ReduceProd", ["s"], ["y"], {"keepdims": 1})], {}),
    "product by axis": ([("ReduceProd", ["x", "a"], ["y"], {"keepdims": 0})], {"a": vector(-1, 1)}),
    "triangle": ([("Trilu", ["x", "k"], ["y"], {"upper": 0})], {"k": np.array(-1)}),
    "squeeze": ([("ReduceMax", ["x", "a"], ["m"], {}), ("Squeeze", ["m"], ["y"], {})], {"a": vector(1, 3)}),
    "like": ([("CastLike", ["s", "x"], ["y"], {})], {}),
    "waves": ([("Sin", ["x"], ["a"], {}), ("Cos", ["a"], ["b"], {}), ("Ceil", ["x"], ["c"], {}), ("Round", ["x"], ["d"],
               {}), ("Sign", ["x"], ["e"], {}), ("Sum", ["b", "c", "d", "e"], ["y"], {})], {}),
}  # fmt: skip


@pytest.mark.parametrize("known", [True, False], ids=["known", "computed"])
@pytest.mark.parametrize("name", NODES)
def test_computed_sizes_are_those_of_onnx_runtime(name: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, constants = NODES[name]
    integers = name in ("gather", "division", "remainder", "range", "where", "product")
    graph = helper.make_graph(
        [helper.make_node("Shape", ["x"], ["s"])] + [helper.make_node(o, i, y, **a) for o, i, y, a in nodes],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.INT64 if integers else TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = Hub(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto)))
    if not known:
        monkeypatch.setattr("edgekron.modules.graph_module.with_known_sizes", lambda model: model)
    module = GraphModule(model)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 4, 6, 5)).astype(np.float32)
        found, expected = module(torch.from_numpy(x)).detach().numpy(), onnx_output(model, x)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert np.abs(found - expected).max() < 1e-5


def test_an_unknown_operator_among_sizes_is_named() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ScatterElements", ["s", "i", "v"], ["t"], name="odd"),
        helper.make_node("ConstantOfShape", ["t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(vector(1), "i"), numpy_helper.from_array(vector(7), "v")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(UserError, match="node odd is ScatterElements, which cannot be trained"):
        GraphModule(Hub(ir.serde.deserialize_model(proto)))
