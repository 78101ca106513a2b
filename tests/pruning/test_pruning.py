"""Criteria, budgets and the repair on trained networks; pruned networks in plans, files and both formats."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from edgekron import models
from edgekron.compression import artifact
from edgekron.compression.compressor import apply_plan, compress, split_method
from edgekron.compression.report import CompressionReport
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub, load
from edgekron.models import datasets
from edgekron.models.resnet import ResNet
from edgekron.modules.factorize import factorize_module
from edgekron.modules.graph_module import GraphModule
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.planning.ranks import rounded
from edgekron.pruning import CRITERIA, ChannelStructure, PruningSettings, prune, prune_as
from edgekron.pruning.criteria import find_orders
from edgekron.pruning.elimination import Elimination, elimination_order
from edgekron.pruning.order import order_of
from edgekron.pruning.quotas import removed_units, to_ratios
from edgekron.pruning.similarity import MOST_DB, greedy_order, map_similarity


def outputs(hub: Hub, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(hub.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    value: np.ndarray = session.run(None, {hub.input_name: x})[0]
    return value


def accuracy(hub: Hub, count: int = 1000) -> float:
    images, labels = next(iter(datasets.load("fashion-mnist:test").subset(count).batches(count)))
    return 100 * float((outputs(hub, images).argmax(1) == labels).mean())


def macs(hub: Hub) -> int:
    return sum(layer.dense_macs for layer in hub.layers())


class Gated(nn.Module):
    """A residual block with squeeze and excite, and a depthwise-separable one: [N, 1, 28, 28] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, 2, 1)
        self.inner, self.outer = nn.Conv2d(24, 32, 3, 1, 1), nn.Conv2d(32, 24, 3, 1, 1)
        self.squeeze, self.excite = nn.Linear(24, 8), nn.Linear(8, 24)
        self.expand, self.depthwise = nn.Conv2d(24, 48, 1), nn.Conv2d(48, 48, 3, 2, 1, groups=48)
        self.project = nn.Conv2d(48, 32, 1)
        self.norm = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        y = self.outer(self.inner(x).relu())
        gate = self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()
        x = (x + y * gate[:, :, None, None]).relu()
        x = self.norm(self.project(self.depthwise(self.expand(x).relu()).relu())).relu()
        return self.fc(x.mean((2, 3)))


def gated() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Gated().eval()


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return models.load("resnet20")


@pytest.fixture(scope="module")
def hub(module: nn.Module) -> Hub:
    return load(module, input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def data() -> list[np.ndarray]:
    return [x for x, _ in datasets.load("fashion-mnist:calibration").subset(64).batches(32)]


def test_similarity_is_that_of_the_formulas() -> None:
    maps = np.random.default_rng(0).random((2, 4, 25)).astype(np.float32)
    maps[:, 1] = maps[:, 0]
    maps[:, 3] = 0
    maps[0, 2, 0] = 1
    ssim, dead = map_similarity(lambda: iter([maps]), "ssim")
    psnr, _ = map_similarity(lambda: iter([maps[:1], maps[1:]]), "psnr")
    u, v = maps[:, 0].astype(np.float64), maps[:, 2].astype(np.float64)
    c1, c2 = 0.01**2, 0.03**2
    covariance = ((u - u.mean(1, keepdims=True)) * (v - v.mean(1, keepdims=True))).mean(1)
    light = (2 * u.mean(1) * v.mean(1) + c1) / (u.mean(1) ** 2 + v.mean(1) ** 2 + c1)
    wanted = (light * (2 * covariance + c2) / (u.var(1) + v.var(1) + c2)).mean()
    assert ssim[0, 2] == pytest.approx(wanted, abs=1e-5)
    assert psnr[0, 2] == pytest.approx((-10 * np.log10(((u - v) ** 2).mean(1))).mean(), abs=1e-3)
    assert ssim[0, 1] == pytest.approx(1, abs=1e-5)
    assert psnr[0, 1] == MOST_DB
    assert dead.tolist() == [False, False, False, True]
    np.testing.assert_allclose(ssim, ssim.T)


def test_the_greedy_order_takes_dead_maps_and_copies_first() -> None:
    similarity = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.1], [0.2, 0.3, 1, 0.5], [0.1, 0.1, 0.5, 1]])
    dead = np.array([False, False, False, True])
    order, scores = greedy_order(similarity, dead, np.ones(4))
    # Of 0 and 1, the second is more like the rest; then what is left.
    assert order[:2] == [3, 1]
    assert scores == [np.inf, 0.9, 0.2]
    tied = np.array([[1, 0.9, 0.3], [0.9, 1, 0.3], [0.3, 0.3, 1]])
    assert greedy_order(tied, np.zeros(3, bool), np.array([2.0, 1.0, 1.0]))[0][0] == 1


def test_elimination_adds_what_least_squares_loses() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 12)) @ rng.standard_normal((12, 12))
    weights = rng.standard_normal((5, 12))
    blocks = np.arange(12).reshape(6, 2)
    moments = x.T @ x / len(x)
    reader = Elimination(moments, weights, blocks, np.arange(6), 1.0)
    order, added = elimination_order([reader], 6, 4)
    for done in range(1, 5):
        left = np.concatenate([blocks[i] for i in range(6) if i not in order[:done]])
        best, *_ = np.linalg.lstsq(x[:, left], x @ weights.T, rcond=None)
        lost = ((x[:, left] @ best - x @ weights.T) ** 2).sum(1).mean()
        assert sum(added[:done]) == pytest.approx(lost, rel=1e-3)
    np.testing.assert_allclose(reader.weights[:, left], best.T, atol=1e-3)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_meets_the_budget_at_widths_that_run_well(
    criterion: str, hub: Hub, data: list[np.ndarray]
) -> None:
    before = hub.proto().SerializeToString()
    result = prune(hub, criterion, PruningSettings(repair=False), ratios={"macs": 1.5, "parameters": 1.4}, data=data)
    layers = hub.layers(), result.hub.layers()
    assert macs(hub) / macs(result.hub) >= 1.5
    assert sum(x.dense_parameters for x in layers[0]) / sum(x.dense_parameters for x in layers[1]) >= 1.4
    assert all(rounded(count) == count for count, _ in result.kept.values())
    assert hub.proto().SerializeToString() == before
    assert outputs(result.hub, data[0]).shape == (32, 10)


@pytest.mark.parametrize(("any_width", "most"), [(True, 2.12), (False, 2.35)])
def test_of_channels_at_one_price_no_more_go_than_the_budget_takes(any_width: bool, most: float) -> None:
    """As where the calibration images are black, and all maps are alike."""
    widths = (3, 48, 48, 64, 8)
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)]
    source = load(nn.Sequential(*layers), input_shape=(3, 16, 16))
    structure = ChannelStructure(source)
    orders = {
        group.name: order_of(group, range(len(group.units) - 1), [1.0] * 99, [-1.0] * (len(group.units) - 1))
        for group in structure.groups
        if group.reason is None
    }
    counts = to_ratios(structure, orders, {"macs": 2.0}, any_width=any_width)
    left = structure.costs(removed_units(orders, counts))["macs"]
    assert 2.0 <= structure.costs(set())["macs"] / left < most


@pytest.mark.thorough
def test_the_repair_brings_accuracy_back(hub: Hub, data: list[np.ndarray]) -> None:
    orders = find_orders(hub, ChannelStructure(hub), "qsfm-ssim", data)
    kept = {name: (len(order.group.units) - len(order.group.units) // 4, "qsfm-ssim") for name, order in orders.items()}
    bare = prune_as(hub, kept, data=data, repaired=False)
    mended = prune_as(hub, kept, data=data, repaired=True)
    assert not bare.repairs
    assert all(0 <= one.error < 0.3 for one in mended.repairs.values())
    assert accuracy(mended.hub) > accuracy(bare.hub) + 5
    assert accuracy(mended.hub) > accuracy(hub) - 2


def test_the_scale_of_folded_normalisations_is_found(module: nn.Module, hub: Hub, data: list[np.ndarray]) -> None:
    order = find_orders(hub, ChannelStructure(hub), "bn-scale", data)["layer3.0.conv1"]
    scales = module.get_submodule("layer3.0.bn1").weight.detach().abs().numpy()
    found = np.full(64, np.nan)
    found[list(order.places)] = order.price
    measured = ~np.isnan(found)
    assert np.corrcoef(found[measured], scales[measured])[0, 1] > 0.9


def test_a_lower_threshold_removes_more(hub: Hub, data: list[np.ndarray]) -> None:
    found = []
    for similarity in (0.9, 0.5, 0.2):
        settings = PruningSettings(similarity, any_width=True, repair=False)
        result = prune(hub, "qsfm-ssim", settings, ratios={}, data=data)
        found.append(macs(result.hub))
    assert macs(hub) >= found[0] > found[1] > found[2]


def test_prune_then_factorize_in_one_plan_to_both_formats(data: list[np.ndarray], tmp_path: Path) -> None:
    # From an ONNX file: the same method on the same graph.
    export_onnx(load(gated(), input_shape=(1, 28, 28)), tmp_path / "dense.onnx")
    source = load(tmp_path / "dense.onnx")
    made = compress(source, model="gated", ratios={"macs": 3.0}, data=data, method="qsfm+low-rank")
    totals = made.report.macs
    assert totals.ratio >= 3.0
    rows = made.report.layers
    assert {"qsfm-ssim", "low-rank"} <= {row.method for row in rows.values()}
    both = [row for row in rows.values() if row.shape and row.channels]
    assert both
    assert CompressionReport.from_json(json.loads(json.dumps(made.report.to_json()))) == made.report
    # The plan says it all.
    plan = CompressionPlan.from_toml(made.plan.to_toml())
    assert plan == made.plan
    x = data[0][:4]
    wanted = outputs(made.hub, x)
    again = apply_plan(source, plan, data=data)
    np.testing.assert_allclose(outputs(again.hub, x), wanted, atol=1e-3)
    # Saved and loaded without the module's class.
    artifact.write(made, tmp_path / "folder")
    back = artifact.read_hub(tmp_path / "folder")
    np.testing.assert_allclose(outputs(back, x), wanted, atol=1e-6)
    export_onnx(back, tmp_path / "m.onnx")
    export_tflite(back, tmp_path / "m.tflite")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {back.input_name: x})[0], wanted, atol=1e-4)
    interpreter = Interpreter(str(tmp_path / "m.tflite"))
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], [1, *given["shape"][1:]])
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x[:1].reshape(interpreter.get_input_details()[0]["shape"]))
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(taken["index"]), wanted[:1], atol=1e-4)


def test_a_pruned_network_cannot_be_put_back_into_its_class(module: nn.Module, hub: Hub) -> None:
    pruned = prune(hub, "l1", PruningSettings(), ratios={"macs": 1.2}, data=[])
    with pytest.raises(UserError, match="channels of layer1.0.conv1.* are pruned"):
        factorize_module(module, pruned.hub)


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("layer1.0.conv2", LayerPlan(channels=8, criterion="l1"), "cannot be pruned: it has only a part"),
        ("layer1.0.conv1", LayerPlan(channels=17, criterion="l1"), "has 16 channels; 17 of them cannot stay"),
        ("layer1.0.conv1", LayerPlan(channels=8, criterion="best"), "there is no criterion 'best'"),
        ("layer1.0.conv1", LayerPlan(channels=8, criterion="qsfm-ssim"), "give some"),
        ("fc", LayerPlan(channels=8, criterion="l1"), "makes an output of the network"),
    ],
)
def test_plans_that_cannot_be_applied(name: str, line: LayerPlan, why: str, hub: Hub) -> None:
    before = hub.proto().SerializeToString()
    with pytest.raises(UserError, match=why):
        apply_plan(hub, CompressionPlan("resnet20", {name: line}))
    assert hub.proto().SerializeToString() == before


def test_requests_that_make_no_sense(hub: Hub) -> None:
    with pytest.raises(UserError, match="the best that this network can is"):
        compress(hub, model="resnet20", ratios={"macs": 50.0}, method="l1")
    for method in ("best", "qsfm+", "low-rank+qsfm", "qsfm+low-rank+cp"):
        with pytest.raises(UserError, match="there is no method"):
            split_method(method)
    assert split_method("qsfm+tt") == ("qsfm-ssim", "tt")
    with pytest.raises(UserError, match="channels must be a number above 0"):
        CompressionPlan.from_toml('version = 1\n[layers.a]\nmethod = "dense"\nchannels = 3\n')


@pytest.mark.parametrize(
    "name",
    [
        "gated",
        pytest.param("residual", marks=pytest.mark.thorough),
        pytest.param("mobilenet", marks=pytest.mark.thorough),
    ],
)
def test_groups_are_those_of_torch_pruning(name: str) -> None:
    tp = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    shape = (1, 28, 28) if name == "gated" else (3, 32, 32)
    if name == "gated":
        module = gated()
    elif name == "residual":
        module = ResNet((1, 1, 1, 1), squeeze_excite=True, stem="small", classes=10)
    else:
        module = models.build("mobilenetv2-cifar")
    module.eval()
    structure = ChannelStructure(load(module, input_shape=shape))
    graph = tp.DependencyGraph().build_dependency(module, torch.zeros(1, *shape))
    names = {part: name for name, part in module.named_modules()}
    groups = [group for group in structure.groups if group.reason is None]
    assert len(groups) > 4
    for group in groups:
        theirs = graph.get_pruning_group(module.get_submodule(group.name), tp.prune_conv_out_channels, idxs=[1])
        if isinstance(module.get_submodule(group.name), nn.Linear):
            theirs = graph.get_pruning_group(module.get_submodule(group.name), tp.prune_linear_out_channels, idxs=[1])
        makers, readers = set(), set()
        for item in theirs:
            part, how = item.dep.layer, item.dep.pruning_fn.__name__
            whole = isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
            if whole and how.endswith("out_channels"):
                makers.add(names[part])
            elif whole and how.endswith("in_channels"):
                readers.add(names[part])
        assert makers == set(group.layers)
        assert readers == set(group.readers)


def test_normalisations_that_stand_alone_are_reestimated(data: list[np.ndarray]) -> None:
    """The channels keep their mean and variance behind them, whatever the pruned network gives them."""
    torch.manual_seed(1)
    source = load(Preactivated().eval(), input_shape=(1, 28, 28))
    norms = [node for node in source.model.graph if node.op_type == "BatchNormalization"]
    assert len(norms) == 2
    made = prune_as(source, {"inner": (12, "random")}, data=data)
    for name in (str(node.outputs[0].name) for node in norms):
        before, after = (statistics(hub, name, data) for hub in (source, made.hub))
        np.testing.assert_allclose(after, before, atol=1e-3)


class Preactivated(nn.Module):
    """A residual block with its normalisation before the activation, and one behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 1, 1), nn.Conv2d(24, 16, 1)
        self.first, self.last = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(self.first(x).relu()).relu())
        x = torch.cat([x, x.square()], 1)[:, :16]
        return self.fc(self.last(x).relu().mean((2, 3)))


def statistics(hub: Hub, name: str, data: list[np.ndarray]) -> np.ndarray:
    """Mean and deviation of each channel of a value."""
    model = hub.submodel([hub.input_name], [name]).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    value = np.concatenate([session.run(None, {hub.input_name: x})[0] for x in data])
    return np.stack([value.mean((0, 2, 3)), value.std((0, 2, 3))])


def test_a_pruned_network_can_be_trained_and_its_plan_applied_to_it(data: list[np.ndarray]) -> None:
    source = load(gated(), input_shape=(1, 28, 28))
    made = compress(source, model="gated", ratios={"macs": 2.0}, data=data, method="absorb")
    module = GraphModule(made.hub)
    x = data[0][:4]
    np.testing.assert_allclose(outputs(module.to_hub(), x), outputs(made.hub, x), atol=1e-4)
    again = apply_plan(made.hub, made.plan)
    np.testing.assert_allclose(outputs(again.hub, x), outputs(made.hub, x), atol=1e-6)
