"""How exact the lowering and the exporters are.

    python -m benchmarks.exactness [--networks NAME ...]

Layers: Kronecker shapes, ranks, strides, paddings, dilations and groups, in every contraction order and every form
that a target can run, each exported as a file of its own and compared with the dense convolution of the expanded
kernel in float64. Networks: each bundled network, its layers factorized by different shapes at half rank, exported to
both formats and compared with the factorized torch model. The figures are the largest absolute difference over the
largest absolute output. The record is ``exactness``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F

from benchmarks.common.harness import Experiment
from benchmarks.common.record import Record, machine, made
from edgekron import models
from edgekron.algebra import FactorNetwork, Geometry
from edgekron.algebra.lowering import valid_forms
from edgekron.compression.compressor import apply_plan
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Factorized, Hub, load
from edgekron.modules.factorize import factorize_module
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.runtimes import load as open_file
from edgekron.runtimes import run_nchw
from edgekron.structures import KroneckerShape

SHAPES = [
    (KroneckerShape((8, 1), (1, 8), (1, 3), (3, 1)), 5),
    (KroneckerShape((8, 1), (1, 8), (1, 3), (1, 3)), 6),
    (KroneckerShape((8, 1), (1, 8), (3, 1), (3, 1)), 6),
    (KroneckerShape((4, 2), (2, 4), (1, 3), (1, 3)), 3),
    (KroneckerShape((4, 2), (2, 4), (3, 1), (3, 1)), 3),
    (KroneckerShape((2, 4), (4, 2), (3, 1), (1, 3)), 2),
    (KroneckerShape((2, 3), (3, 2), (2, 2), (2, 2)), 2),
    (KroneckerShape((4, 2), (4, 2), (1, 1), (1, 1)), 2),
    (KroneckerShape((6, 1), (4, 1), (1, 3), (1, 3)), 2),
    (KroneckerShape((2, 2), (2, 2), (1, 3), (1, 3), groups=2), 2),
    (KroneckerShape((2, 2), (1, 3), (5, 1), (1, 5)), 3),
    (KroneckerShape((4, 1), (2, 2), (1, 2), (1, 1)), 2),
]
GEOMETRIES = [
    Geometry(padding=((1, 1), (1, 1))),
    Geometry(),
    Geometry((2, 2), padding=((1, 1), (1, 1))),
    Geometry((1, 2), (2, 1), ((2, 2), (1, 1))),
    Geometry((2, 1), (1, 2), ((0, 1), (3, 2))),
]
SIZE = (13, 11)


def layer_cases() -> Iterator[tuple[FactorNetwork, Geometry, tuple[int, ...], str, tuple[str, ...]]]:
    """(network, geometry, order, target, forms) of every layer."""
    for (shape, rank), geometry in itertools.product(SHAPES, GEOMETRIES):
        network = shape.network(rank)
        for order, target in itertools.product(network.orders(), ("onnx", "tflite")):
            stages = network.stages(order, geometry)
            for forms in itertools.product(*(valid_forms(stage, target) for stage in stages)):
                yield network, geometry, order, target, forms


def dense_hub(network: FactorNetwork, geometry: Geometry, folder: Path) -> Hub:
    """A hub of one dense convolution with this kernel shape and geometry."""
    f, c, kh, kw = network.kernel_shape
    groups = network.total("g")
    (top, bottom), (left, right) = geometry.padding
    node = onnx.helper.make_node(
        "Conv",
        ["x", "layer.weight"],
        ["y"],
        name="layer",
        kernel_shape=[kh, kw],
        strides=list(geometry.stride),
        dilations=list(geometry.dilation),
        pads=[top, left, bottom, right],
        group=groups,
    )
    weight = onnx.numpy_helper.from_array(np.zeros((f, c, kh, kw), np.float32), "layer.weight")
    h, w = geometry.output_size(SIZE, (kh, kw))
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", groups * c, *SIZE])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", f, h, w])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "dense.onnx")
    return load(folder / "dense.onnx")


def layers(folder: Path) -> dict[str, dict[str, float]]:
    """Number of cases and the largest relative error for each target."""
    found: dict[str, list[float]] = {"onnx": [], "tflite": []}
    for index, (network, geometry, order, target, forms) in enumerate(layer_cases()):
        rng = np.random.default_rng(index)
        count = len(network.axes)
        tensors = tuple(rng.standard_normal(network.factor_shape(i)).astype(np.float32) for i in range(count))
        bias = rng.standard_normal(network.kernel_shape[0]).astype(np.float32)
        hub = dense_hub(network, geometry, folder)
        hub.factorize("layer", Factorized("layer", "conv", network, tensors, bias, order, geometry, {target: forms}))
        path = folder / f"layer.{target}"
        x = rng.standard_normal((1, *hub.input_shape)).astype(np.float32)
        (export_onnx if target == "onnx" else export_tflite)(hub, path, force=True)
        (got,) = run_nchw(open_file(path), x)
        kernel = torch.from_numpy(network.expand([t.astype(np.float64) for t in tensors]))
        (top, bottom), (left, right) = geometry.padding
        padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
        wanted = F.conv2d(
            padded,
            kernel,
            torch.from_numpy(bias).double(),
            geometry.stride,
            0,
            geometry.dilation,
            network.total("g"),
        ).numpy()
        found[target].append(float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    return {target: {"cases": len(errors), "worst": max(errors)} for target, errors in found.items()}


def mixed_plan(hub: Hub, model: str) -> CompressionPlan:
    """Another Kronecker shape for each layer in turn, at half of its full rank: every class of shapes in each
    network.
    """
    lines = {}
    for index, layer in enumerate(layer for layer in hub.layers() if layer.frozen_reason is None):
        f, c, h, w = layer.kernel_shape
        f //= layer.groups
        two = 2 if f % 2 == 0 and c % 2 == 0 else 1
        shape = (
            KroneckerShape((f, 1), (1, c), (1, h), (w, 1), layer.groups),
            KroneckerShape((f // two, two), (two, c // two), (1, h), (1, w), layer.groups),
            KroneckerShape((f, 1), (1, c), (h, 1), (w, 1), layer.groups),
            KroneckerShape((f // two, two), (two, c // two), (h, 1), (1, w), layer.groups),
        )[index % 4]
        lines[layer.name] = LayerPlan("kronecker", str(shape), (max(1, shape.max_rank // 2),))
    return CompressionPlan(model, lines)


def network(name: str, folder: Path) -> dict[str, float]:
    """The largest relative error of each exported file of a bundled network."""
    torch.manual_seed(0)
    module = models.load(name)
    shape = models.NETWORKS[name].input_shape
    if models.facts(name) is None:
        # Statistics of real activations, so that an untrained network neither explodes nor dies.
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        with torch.no_grad():
            module.train()(torch.randn(4, *shape))
    module.eval()
    hub = load(module, input_shape=shape)
    result = apply_plan(hub, mixed_plan(hub, name))
    factorized = factorize_module(module, result.hub)
    x = torch.randn(2, *shape)
    with torch.no_grad():
        wanted = factorized(x).numpy()
    row: dict[str, float] = {"layers": sum(line.method != "dense" for line in result.plan.layers.values())}
    for kind, export in (("onnx", export_onnx), ("tflite", export_tflite)):
        export(result.hub, folder / f"m.{kind}", force=True)
        (got,) = run_nchw(open_file(folder / f"m.{kind}"), x.numpy())
        row[kind] = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    print(name, json.dumps(row), flush=True)
    return row


def options(parser: argparse.ArgumentParser) -> None:
    """Which networks."""
    parser.add_argument("--networks", nargs="*", default=list(models.NETWORKS), help="default: all bundled networks")


def measure(arguments: argparse.Namespace) -> Record:
    """All layers, and the networks that are asked for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_layer = layers(folder)
        print(json.dumps(by_layer), flush=True)
        by_network = {name: network(name, folder) for name in arguments.networks}
    record = made("torch", "onnxruntime", "ai-edge-litert", "numpy")
    return record | {"machine": machine(), "layers": by_layer, "networks": by_network}


EXPERIMENT = Experiment("exactness", __doc__, "exactness", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
