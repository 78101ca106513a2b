"""One network on its way from a torch module to both files, and how each stage went."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common.networks import ratios
from benchmarks.common.record import Row
from benchmarks.common.variants import EXPORTS
from edgekron.compression.compressor import Compression, apply_plan, compress
from edgekron.errors import UserError
from edgekron.exporters.verify.compare import cases, compare, difference, open_version
from edgekron.graph import Hub, load
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.structures import KroneckerShape

from .judgement import judged, tensors

#: The compressor searches shapes and ranks in networks up to this size; larger ones get one shape for all layers.
SEARCHED = 3_000_000
#: Layers with more weights than this stay dense: their decomposition alone would take most of the time.
LARGEST_LAYER = 20_000_000


def through(module: nn.Module, side: int, name: str) -> Row:
    """What became of ``module``, which takes images of ``side`` pixels: by stage, how it went."""
    row: Row = {}
    hub = _stage(row, "import", lambda: load(module, input_shape=(3, side, side)))
    if hub is None:
        return row | {target: row["import"] | {"stage": "import"} for target in ("onnx", "tflite")}
    layers = hub.layers()
    row["layers"] = len(layers)
    row["macs"] = sum(layer.dense_macs for layer in layers)
    row["parameters"] = sum(layer.dense_parameters for layer in layers)
    row["import"] = _stage(row, "import", lambda: _against_module(module, hub, side)) or row["import"]
    # A network that one random image drives to infinity can be compared in nothing.
    compressed = _stage(row, "compress", lambda: _compress(hub, name, row)) if _passed(row["import"]) else None
    if compressed is None:
        failed = "compress" if _passed(row["import"]) else "import"
        return row | {target: row[failed] | {"stage": failed} for target in ("onnx", "tflite")}
    with tempfile.TemporaryDirectory() as folder:
        for target, export in EXPORTS.items():
            path = Path(folder) / f"network.{target}"
            _stage(row, target, partial(export, compressed, path))
            if _passed(row[target]):
                size = path.stat().st_size
                row[target] = _stage(row, target, partial(_against_hub, compressed, path, module)) or row[target]
                row[target] |= {"bytes": size}
    return row


def _stage(row: Row, name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; ``row[name]`` says how it went, with the sentence of a refusal or the name of an error."""
    start = time.perf_counter()
    try:
        result = work()
    except UserError as error:
        row[name] = {"status": "refused", "reason": str(error)}
        return None
    except Exception as error:  # noqa: BLE001  the defects that the sweep is for
        # The traceback has this machine's paths: it is for the one who runs the sweep, not for the record.
        traceback.print_exc()
        row[name] = {"status": "crashed", "reason": type(error).__name__}
        return None
    row[name] = {"status": "pass", "seconds": round(time.perf_counter() - start, 1)}
    return result


def _passed(outcome: Row) -> bool:
    return outcome["status"] == "pass"


def _against_module(module: nn.Module, hub: Hub, side: int) -> Row:
    """The dense graph in ONNX Runtime beside the torch module."""
    version, ends = open_version(hub, inner=False), []
    for case, x in cases((3, side, side), None):
        with torch.no_grad():
            expected = [t.numpy() for t in tensors(module(torch.from_numpy(x)))]
        given = version.run(x)
        ends += [difference(n, case, array, given[n]) for n, array in zip(version.outputs, expected, strict=True)]
    return judged(ends, module, hub.input_shape)


def _compress(hub: Hub, name: str, row: Row) -> Hub:
    """At half the parameters where that can be reached, else at less, else dense with the reason in ``row``."""
    refusal = ""
    if row["parameters"] > SEARCHED:
        result = apply_plan(hub, _uniform_plan(hub, name))
        return _reported(hub, result, row)
    for ratio in (2.0, 1.5, 1.2):
        try:
            return _reported(hub, compress(hub, model=name, ratios={"parameters": ratio}), row)
        except UserError as error:
            refusal = str(error)
            if "cannot be reached" not in refusal:
                raise
    row["nothing_to_compress"] = refusal
    return hub


def _reported(hub: Hub, result: Compression, row: Row) -> Hub:
    row["factorized"] = sum(layer.factorized is not None for layer in result.hub.layers())
    row["ratio"] = ratios(hub, result.hub)["parameters"]
    if not row["factorized"]:
        row["nothing_to_compress"] = "no layer can be factorized"
    return result.hub


def _uniform_plan(hub: Hub, name: str) -> CompressionPlan:
    """Every layer that is not frozen as a spatial (or channel) SVD, a Kronecker shape, at half its parameters."""
    lines = {}
    for layer in hub.layers():
        if layer.frozen_reason is not None or layer.dense_parameters > LARGEST_LAYER:
            continue
        f, c, h, w = layer.kernel_shape
        shape = KroneckerShape((f // layer.groups, 1), (1, c), (1, h), (w, 1), layer.groups)
        rank = min(layer.dense_parameters // (2 * shape.network(1).parameters), shape.max_rank)
        if rank >= 1:
            lines[layer.name] = LayerPlan("kronecker", str(shape), (rank,))
    return CompressionPlan(name, lines)


def _against_hub(hub: Hub, path: Path, module: nn.Module) -> Row:
    reference = open_version(hub, inner=False)
    ends, _ = compare(reference, open_version(path, inner=False), cases(reference.input_shape, None), {})
    return judged(ends, module, hub.input_shape)
