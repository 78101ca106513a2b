"""What an exported file executes: MACs by layer and form, and the layer behind every node of a profile."""

import numpy as np
import onnx
import pytest

from edgekron import graph, models
from edgekron.algebra import FactorNetwork, Geometry
from edgekron.exporters.executed import OTHER, by_layer, executed_macs
from edgekron.exporters.onnx import export_onnx
from edgekron.graph import Factorized
from edgekron.runtimes.agent.profile import NodeTime, profile

LAYER = "features.conv1_2"


@pytest.fixture(scope="module")
def sixconv():
    return graph.load(models.load("sixconv"), input_shape=(1, 28, 28))


def factorized(hub, forms):
    """Conv1_2 (64 to 64 channels, 3x3, 28x28 pixels) as a Kronecker product of 8x8 with 3x3 and of 8x8 with 1x1."""
    rng = np.random.default_rng(0)
    network = FactorNetwork("f1 c1 h1 w1, f2 c2", {"f1": 8, "c1": 8, "h1": 3, "w1": 3, "f2": 8, "c2": 8})
    tensors = tuple(rng.normal(size=network.factor_shape(i)).astype(np.float32) for i in range(2))
    geometry = Geometry(padding=((1, 1), (1, 1)))
    hub = hub.copy()
    bias = np.zeros(64, np.float32)
    hub.factorize(LAYER, Factorized(LAYER, "conv", network, tensors, bias, (1, 0), geometry, {"onnx": forms}))
    return hub


def test_dense_network_executes_what_it_counts(sixconv):
    for target in ("onnx", "tflite"):
        assert sum(executed_macs(sixconv, target).values()) == 77_719_808


@pytest.mark.parametrize(
    ("forms", "macs"),
    [
        (("fold", "fold"), 784 * (8 * 8 * 8 + 8 * 8 * 8 * 9)),
        (("grouped", "grouped"), 784 * (8 * 8 * 8 + 8 * 8 * 8 * 9)),
        (("matmul", "fold"), 784 * (8 * 8 * 8 + 8 * 8 * 8 * 9)),
        (("mix", "fold"), 784 * (64 * 64 + 8 * 8 * 8 * 9)),
        (("dense",), 784 * 64 * 64 * 9),
    ],
)
def test_macs_depend_on_the_form(sixconv, forms, macs):
    assert executed_macs(factorized(sixconv, forms), "onnx")[LAYER] == macs


@pytest.mark.parametrize("name", ["sixconv", "resnet20"])
def test_every_layer_of_a_profile_is_found(tmp_path, name):
    hub = graph.load(models.load(name), input_shape=(1, 28, 28))
    path = tmp_path / "dense.onnx"
    model = export_onnx(hub, path)
    times = profile(path, runs=5, warm_up=1)
    seconds = by_layer(model, hub.layers(), times)
    assert all(seconds[layer.name] > 0 for layer in hub.layers())
    assert sum(seconds.values()) == pytest.approx(sum(time.seconds for time in times))


def test_every_stage_counts_for_its_layer(sixconv, tmp_path):
    hub = factorized(sixconv, ("matmul", "fold"))
    model = export_onnx(hub, tmp_path / "small.onnx")
    mine = [node for node in model.graph.node if node.name.startswith(LAYER)]
    times = [NodeTime(node.name, node.op_type, 1.0) for node in mine]
    assert len(mine) > 2
    assert by_layer(model, hub.layers(), times)[LAYER] == len(mine)


def test_what_the_runtime_adds_belongs_to_no_layer(sixconv):
    model: onnx.ModelProto = export_onnx(sixconv)
    times = [NodeTime("ReorderOutput_token_7", "ReorderOutput", 2.0), NodeTime("node_max_pool2d", "MaxPool", 1.0)]
    assert by_layer(model, sixconv.layers(), times)[OTHER] == 3.0
