"""``edgekron verify``: how far a candidate is from a reference, end to end and by layer; or a whole chain of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekron.exporters.verify.verdict import judge

from .chain_names import run_chain
from .shared.bounds import add_bounds, check_bounds
from .shared.options import add_data, add_factory, calibration, open_source
from .shared.output import print_json, print_table, say

if TYPE_CHECKING:
    from edgekron.exporters.verify.compare import Difference
    from edgekron.graph import Hub

#: Real images to compare on unless the user says how many.
_IMAGES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """REFERENCE and what came of it, and when to say no."""
    kinds = "a bundled name, an .onnx, .pt2 or .tflite file, or a folder written by compress"
    parser.add_argument("reference", metavar="REFERENCE", help=kinds)
    parser.add_argument(
        "candidates",
        metavar="CANDIDATE",
        nargs="+",
        help="the same; several are a chain, such as DIR out.onnx out.tflite out-int8.tflite: each version is compared "
        "with the one it came from, and the errors of decomposition, conversion and quantization are told apart; then "
        "--tolerance is for conversions, --sqnr and --agreement for quantizations and for the last version",
    )
    add_bounds(parser)
    add_factory(parser)
    add_data(parser, _IMAGES)


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables and the verdict; exit code 1 when a bound is not kept."""
    from edgekron.exporters.verify.compare import cases, common_shape, compare, open_version

    check_bounds(arguments)
    texts = [arguments.reference, *arguments.candidates]
    if len(texts) > 2:
        return run_chain(texts, arguments)
    sources = [_source(text, arguments) for text in texts]
    reference, candidate = (open_version(source) for source in sources)
    shape = common_shape(reference, candidate)
    batches = calibration(arguments, shape)
    images = np.concatenate(list(batches)) if batches else None
    names: dict[str, str] = {}
    for source in sources:
        if not isinstance(source, Path):
            names |= _names(source)
    # Real images are the last case, and the only one that integers were made for: others lie beyond their ranges.
    inputs = list(cases(shape, images))
    if images is not None and candidate.precision == "int8":
        del inputs[:-1]
    ends, layers = compare(reference, candidate, inputs, names)
    verdict = judge(ends, ends[-1].case if arguments.data else None, candidate.precision, arguments)
    if arguments.json:
        print_json(
            {
                "reference": arguments.reference,
                "candidate": texts[1],
                "outputs": [row.to_json() for row in ends],
                "layers": [row.to_json() for row in layers],
                **verdict.to_json(),
            }
        )
        return 0 if verdict.passed else 1
    _table("Outputs", [(row.case, row) for row in ends])
    if layers:
        _table("Values that both know by name, each on the input where it differs most", [(d.name, d) for d in layers])
    for line in verdict.lines():
        say(line)
    return 0 if verdict.passed else 1


def _source(text: str, arguments: argparse.Namespace) -> Hub | Path:
    """Files are run as they are; everything else is loaded into a hub."""
    path = Path(text)
    if path.suffix in (".onnx", ".tflite"):
        return path
    return open_source(text, arguments).hub


def _names(hub: Hub) -> dict[str, str]:
    """What values are called: a layer's output by its layer, also behind the one activation that a runtime may fuse."""
    names: dict[str, str] = {}
    for layer in hub.layers():
        names[layer.output] = layer.name
        readers = [user for user, _ in layer.node.outputs[0].uses()]
        if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
            names[str(readers[0].outputs[0].name)] = f"{layer.name}, {readers[0].op_type}"
    return names


def _table(title: str, rows: list[tuple[str, Difference]]) -> None:
    print_table(
        title,
        ["<value", "max abs", "relative", "SQNR dB", "cosine"],
        [[name, f"{d.max_abs:.2e}", f"{d.relative:.2e}", f"{d.sqnr_db:.1f}", f"{d.cosine:.7f}"] for name, d in rows],
    )
