"""Activations in files of integers: how many times as fast as float32 a small network is with each of them.

    python -m benchmarks.activations [--rounds 10]

The network is three convolutions of 3 x 3 with 32 channels on 28 x 28 pixels, each with the activation behind. The
files of one activation and one runtime take turns; the clock is the processor time of the thread. The SQNR compares the
int8 file with the float32 file on the images that its ranges come from. The record is ``activations``, with a page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment
from benchmarks.common.record import Record, Row, day, machine, made
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import Quantization, speed
from edgekron.exporters.tuning.race import Race
from edgekron.exporters.verify import difference
from edgekron.graph import Hub, load
from edgekron.runtimes.agent import backends

CHANNELS, PIXELS, LAYERS, IMAGES = 32, 28, 3, 8
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}
TYPES = ("float32", "int8-dynamic", "int8")
#: Numbers among the operands.
NUMBERS = {"zero": 0.0, "half": 0.5, "three": 3.0, "five": 5.0, "six": 6.0}

#: An operator, its operands ("c" is the value behind a convolution) and its result ("h" is the activation's).
Spelling = Sequence[tuple[str, str, str]]
GATE: Spelling = (("Add", "c three", "a"), ("Clip", "a zero six", "g"))
ACTIVATIONS: dict[str, Spelling] = {
    "Relu": (("Relu", "c", "h"),),
    "Relu beside the value": (("Relu", "c", "r"), ("Add", "c r", "h")),
    "Clip(0, 6)": (("Clip", "c zero six", "h"),),
    "Clip(0.5, 5)": (("Clip", "c half five", "h"),),
    "LeakyRelu": (("LeakyRelu", "c", "h"),),
    "PRelu, one slope": (("PRelu", "c half", "h"),),
    "Sigmoid": (("Sigmoid", "c", "h"),),
    "Tanh": (("Tanh", "c", "h"),),
    "HardSigmoid": (("HardSigmoid", "c", "h"),),
    "HardSwish": (("HardSwish", "c", "h"),),
    "x clip(x + 3, 0, 6) / 6": (*GATE, ("Mul", "c g", "m"), ("Div", "m six", "h")),
    "x Sigmoid(x)": (("Sigmoid", "c", "s"), ("Mul", "c s", "h")),
    "Gelu": (("Gelu", "c", "h"),),
    "Elu": (("Elu", "c", "h"),),
    "Selu": (("Selu", "c", "h"),),
    "Mish": (("Mish", "c", "h"),),
    "Softplus": (("Softplus", "c", "h"),),
    "Softsign": (("Softsign", "c", "h"),),
}


def options(parser: argparse.ArgumentParser) -> None:
    """How well it is timed."""
    parser.add_argument("--rounds", type=int, default=10, help="turns of every file (default: %(default)s)")


def measure(arguments: argparse.Namespace) -> Record:
    """A row for every activation and runtime."""
    rows: list[Row] = []
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, PIXELS, PIXELS), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="edgekron-activations-") as name:
        for activation, spelling in ACTIVATIONS.items():
            hub = network(spelling, Path(name) / "network.onnx")
            for target in RUNTIMES:
                row = {"activation": activation, "target": target}
                rows.append(row | timed(hub, target, images, arguments.rounds, Path(name)))
                print(rows[-1], flush=True)
    return made("onnxruntime", "ai-edge-litert", "ai-edge-quantizer") | {
        "machine": machine(load=True),
        "network": {"layers": LAYERS, "channels": CHANNELS, "pixels": PIXELS},
        "images": IMAGES,
        "rows": rows,
    }


def network(spelling: Spelling, path: Path) -> Hub:
    """The convolutions with an activation behind each."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], {}, "x"
    for layer in range(LAYERS):
        inputs = CHANNELS if layer else 3
        weight = rng.standard_normal((CHANNELS, inputs, 3, 3), dtype=np.float32)
        weights[f"w{layer}"] = weight * np.float32(1.5 / np.sqrt(9 * inputs))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        for operator, operands, result in spelling:
            given = [name if name in NUMBERS else f"{name}{layer}" for name in operands.split()]
            nodes.append(helper.make_node(operator, given, [f"{result}{layer}"]))
        last = f"h{layer}"
    used = {name for node in nodes for name in node.input}
    weights |= {name: np.array(value, np.float32) for name, value in NUMBERS.items() if name in used}
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, PIXELS, PIXELS])
        for name, channels in (("x", 3), (last, CHANNELS))
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "activations", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return load(path)


def timed(hub: Hub, target: str, images: np.ndarray, rounds: int, folder: Path) -> Row:
    """Milliseconds of float32, how many times as fast the other types are, the SQNR, and the operators left over."""
    files = [folder / f"{dtype}.{target}" for dtype in TYPES]
    for dtype, file in zip(TYPES, files, strict=True):
        calibration = [images] if dtype == "int8" else []
        export(hub, file, ExportSettings(Quantization(dtype, calibration)), force=True)
    race = Race(files, threads=1)
    race.run(2, range(len(files)))
    race.run(rounds, range(len(files)))
    speedups = {dtype: asdict(race.ratio(0, place, rounds)) for place, dtype in enumerate(TYPES) if place}
    milliseconds = 1e3 * race.seconds(0, rounds)
    race.close()
    float32, int8 = (backends.run_nchw(backends.load(file), images)[0] for file in (files[0], files[-1]))
    session = backends.load(files[-1])
    left = speed.left_in_float(files[-1]) if target == "onnx" else speed.not_delegated(session)
    sqnr = difference("y", "images", float32, int8).sqnr_db
    return {"milliseconds": milliseconds, "speedups": speedups, "sqnr_db": sqnr, "left": sorted(left)}


def table(result: Record) -> str:
    """A table for each runtime."""
    shape, versions = result["network"], result["versions"]
    setting = (
        f"`{result['command']}`, {day(result)}: {shape['layers']} convolutions of 3 x 3, {shape['channels']} channels, "
        f"{shape['pixels']} x {shape['pixels']} pixels, each with the activation behind; one thread, "
        f"{result['machine']}; "
        f"ONNX Runtime {versions['onnxruntime']}, LiteRT {versions['ai-edge-litert']}. Times as fast as the float32 "
        f"file of the same runtime, with the 95 % interval; SQNR of int8 against float32 on {result['images']} images."
    )
    lines = ["# Activations in files of integers, against float32", "", setting]
    for target, runtime in RUNTIMES.items():
        left = "int8: operators left in float" if target == "onnx" else "int8: operators that XNNPACK does not take"
        lines += ["", f"## {runtime}", ""]
        lines += tables.head(["activation", "float32 ms", *TYPES[1:], "int8: SQNR dB", left])
        for row in result["rows"]:
            if row["target"] == target:
                cells = [row["activation"], f"{row['milliseconds']:.3f}"]
                cells += [tables.interval(row["speedups"][dtype], "x") for dtype in TYPES[1:]]
                lines.append(tables.row([*cells, f"{row['sqnr_db']:.1f}", ", ".join(row["left"])]))
    return "\n".join([*lines, ""])


EXPERIMENT = Experiment("activations", __doc__, "activations", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
