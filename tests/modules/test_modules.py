"""A hub as a torch module and back: the same function, with normalisations and without."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.algebra import FactorNetwork
from edgekron.errors import UserError
from edgekron.graph import Hub, load
from edgekron.modules.foldable_norm import FoldableNorm, longest_part, scaled_factor
from edgekron.training import GraphModule, begin_norms, re_estimate, reconstruct
from edgekron.training.reconstruct import cut
from tests.networks import compressed, hub, images, onnx_output

X = images().fetch(np.arange(6))


@pytest.mark.parametrize("method", ["kronecker", "low-rank", "channel-svd", "tucker", "cp", "tt", "tt-matrix", "tr"])
def test_every_family_runs_as_in_onnx_runtime(method):
    model = compressed(method, ratio=1.2)
    module = GraphModule(model).eval()
    assert np.abs(module(torch.from_numpy(X)).detach().numpy() - onnx_output(model, X)).max() < 1e-5
    assert np.abs(onnx_output(module.to_hub(), X) - onnx_output(model, X)).max() < 1e-5


@pytest.mark.parametrize("method", ["kronecker", "tt-matrix", "tr"])
def test_normalisations_are_folded_in_again(method):
    model = compressed(method, ratio=1.2)
    module = GraphModule(model, normalise=True)
    begin_norms(module, [X])
    assert np.abs(module.eval()(torch.from_numpy(X)).detach().numpy() - onnx_output(model, X)).max() < 1e-4
    norms = [part for part in module.modules() if isinstance(part, FoldableNorm)]
    assert len(norms) == 3
    for norm in norms:
        nn.init.uniform_(norm.gain, 0.5, 1.5)
        nn.init.uniform_(norm.shift, -0.5, 0.5)
    module.train()(torch.from_numpy(X))
    expected = module.eval()(torch.from_numpy(X)).detach().numpy()
    assert np.abs(expected - onnx_output(model, X)).max() > 1e-2
    assert np.abs(onnx_output(module.to_hub(), X) - expected).max() < 1e-5


def test_a_normalisation_in_one_piece_is_batch_normalisation():
    torch.manual_seed(0)
    y = torch.randn(5, 6, 4, 3) * 3 + 1
    whole, reference = FoldableNorm(torch.arange(6)), nn.BatchNorm2d(6)
    nn.init.ones_(whole.gain)
    assert torch.allclose(whole(y), reference(y), atol=1e-6)
    pooled = FoldableNorm(torch.tensor([0, 0, 0, 1, 1, 1]))
    out = pooled(y)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(6), atol=1e-5)
    assert torch.allclose(out.reshape(5, 2, 3, 4, 3).var((0, 2, 3, 4), correction=0), torch.ones(2), atol=0.02)


@pytest.mark.parametrize(
    ("factors", "sizes"),
    [
        ("r f1 c1, r f2 c2 h1", {"r": 2, "f1": 2, "f2": 3, "c1": 2, "c2": 2, "h1": 3}),
        ("g r f1, g c1 r", {"g": 2, "r": 3, "f1": 4, "c1": 2}),
        ("f2 r c1, r g f1, g c2 f3", {"g": 2, "r": 2, "f1": 2, "f2": 3, "f3": 1, "c1": 2, "c2": 2}),
    ],
)
def test_the_scale_of_a_part_belongs_to_one_factor(factors, sizes):
    network = FactorNetwork(factors, sizes)
    torch.manual_seed(0)
    tensors = [torch.randn(network.factor_shape(i)) for i in range(len(network.axes))]
    index, axis, parts = longest_part(network)
    scale = torch.rand(int(parts.max()) + 1) + 0.5
    changed = list(tensors)
    changed[index] = scaled_factor(network, index, axis, tensors[index], scale)
    expected = network.expand(tensors) * scale[parts].view(-1, 1, 1, 1)
    assert torch.allclose(network.expand(changed), expected, atol=1e-5)


def test_a_copy_has_weights_of_its_own_and_gives_the_same():
    module = GraphModule(compressed(), normalise=True).eval()
    x = torch.from_numpy(images(4).fetch(np.arange(4)))
    copied = copy.deepcopy(module)
    with torch.no_grad():
        wanted = module(x)
        assert torch.equal(copied(x), wanted)
        for parameter in copied.parameters():
            parameter.zero_()
        assert torch.equal(module(x), wanted)
        assert not copied(x).any()
    assert copied.to_hub().layers()[0].name == module.to_hub().layers()[0].name


def test_layers_have_their_names():
    module = GraphModule(compressed())
    assert set(module.layers) == {"stem", "block", "down", "classifier"}
    assert module.get_submodule(module.layers["block"]).kernel().shape == (8, 8, 3, 3)


def test_a_name_that_torch_has_for_itself():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"type_": nn.Linear(4, 4)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.parts["type_"](x)

    model = load(Odd(), input_shape=(4,))
    renamed = copy.deepcopy(model.proto())
    for node in renamed.graph.node:
        node.input[:] = [name.replace("parts.type_", "train.half") for name in node.input]
    for tensor in renamed.graph.initializer:
        tensor.name = tensor.name.replace("parts.type_", "train.half")
    again = Hub(ir.serde.deserialize_model(renamed))
    module = GraphModule(again)
    assert module.layers == {"train.half": "train_.half_"}
    x = np.ones((2, 4), np.float32)
    assert np.abs(module(torch.from_numpy(x)).detach().numpy() - onnx_output(again, x)).max() < 1e-6


NODES = {
    "max_pool": (
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])],
        {},
    ),
    "max_pool_ceil": (
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "average": (
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)],
        {},
    ),
    "average_counted": (
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)],
        {},
    ),
    "pad_reflect": ([helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": [0, 0, 1, 2, 0, 0, 0, 1]}),
    "pad": ([helper.make_node("Pad", ["x", "p"], ["y"])], {"p": [0, 1, 1, 2, 0, 2, 0, 1]}),
    "slice": (
        [helper.make_node("Slice", ["x", "a", "b", "c", "d"], ["y"])],
        {"a": [1, -1], "b": [100, -100], "c": [1, 3], "d": [2, -2]},
    ),
    "split": ([helper.make_node("Split", ["x"], ["u", "y"], axis=1, num_outputs=2)], {}),
    "transpose": ([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], {}),
    "flatten": ([helper.make_node("Flatten", ["x"], ["y"], axis=2)], {}),
    "reduce": ([helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"a": [2, -1]}),
    "gather": ([helper.make_node("Gather", ["x", "a"], ["y"], axis=1)], {"a": [-1, 0, 2]}),
    "depth_to_space": ([helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2)], {}),
    "depth_to_space_crd": ([helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], {}),
    "softmax": ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}),
    "elu": ([helper.make_node("Elu", ["x"], ["y"], alpha=0.7)], {}),
    "gelu": ([helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")], {}),
    "hard_sigmoid": ([helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.3)], {}),
    "nearest": (
        [
            helper.make_node(
                "Resize", ["x", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        {"s": [1.0, 1.0, 2.0, 3.0]},
    ),
    "bilinear": ([helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear")], {"s": [1.0, 1.0, 2.0, 2.0]}),
    "instance": (
        [helper.make_node("InstanceNormalization", ["x", "g", "h"], ["y"])],
        {"g": [1.0, 2.0, 3.0, 4.0], "h": [0.5, 0.0, 1.0, 2.0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_an_operator_gives_what_onnx_runtime_gives(name):
    nodes, constants = NODES[name]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(v, np.float32 if isinstance(v[0], float) else np.int64), k)
            for k, v in constants.items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto)
    model = Hub(ir.serde.deserialize_model(proto))
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    found = GraphModule(model)(torch.from_numpy(x)).detach().numpy()
    expected = onnx_output(model, x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_an_operator_that_cannot_be_trained_is_named():
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"], name="odd")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(UserError, match="node odd is NonZero, which cannot be trained"):
        GraphModule(Hub(ir.serde.deserialize_model(proto)))


def test_blocks_begin_and_end_where_one_value_is_alive():
    model = compressed(ratio=2.0)
    module = GraphModule(model)
    blocks = cut(model, module)
    assert [name for block in blocks for name in block[2]] == [x.name for x in model.layers() if x.factorized]
    x = torch.from_numpy(X)
    value, begin = x, module.input_name
    for _, end, _ in blocks:
        (value,), begin = module.run({begin: value}, [end]), end
    if begin != model.output_names[0]:
        (value,) = module.run({begin: value}, list(model.output_names))
    assert torch.allclose(value, module(x), atol=1e-6)


def output_error(model: Hub) -> float:
    pictures = images(64, seed=3).fetch(np.arange(64))
    return float(np.square(onnx_output(model, pictures) - onnx_output(hub(), pictures)).mean())


@pytest.mark.thorough
def test_reconstruction_and_re_estimation_lower_the_error_of_the_output():
    model, pictures = compressed(ratio=2.5), images(64).fetch(np.arange(64))
    plain = output_error(model)
    means = output_error(re_estimate(model, hub(), pictures, rescale=False))
    assert means < plain
    made, blocks = reconstruct(model, hub(), pictures, steps=150, batch=16, learning_rate=3e-3)
    assert output_error(made) < 0.5 * plain
    assert all(block.after < block.before for block in blocks if block.kept)


def test_reconstruction_needs_images():
    with pytest.raises(UserError, match="3 images are too few"):
        reconstruct(compressed(), hub(), X[:3])
