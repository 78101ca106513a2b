"""``edgekron verify``: how far a candidate is from a reference, end to end and by layer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._output import print_json, print_table, say
from ._sources import add_factory, open_model

if TYPE_CHECKING:
    from edgekron.exporters.verify import Difference
    from edgekron.graph import Hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """REFERENCE and CANDIDATE, and when to say no."""
    kinds = "a bundled name, an .onnx, .pt2 or .tflite file, or a folder written by compress"
    parser.add_argument("reference", metavar="REFERENCE", help=kinds)
    parser.add_argument("candidate", metavar="CANDIDATE", help=kinds)
    parser.add_argument("--data", metavar="DATA", help="also compare on real images of this data set")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="how many of them (default: 64)")
    parser.add_argument("--tolerance", type=float, metavar="X", help="exit code 1 if a relative error exceeds X")
    add_factory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints both tables; exit code 1 when the tolerance is exceeded."""
    from edgekron.errors import UserError
    from edgekron.exporters.verify import cases, compare, open_version
    from edgekron.models import datasets

    sources = [_source(text, arguments) for text in (arguments.reference, arguments.candidate)]
    reference, candidate = (open_version(source) for source in sources)
    if arguments.images < 1:
        raise UserError(f"--images {arguments.images} must be at least 1.")
    images = None
    if arguments.data:
        images = next(iter(datasets.load(arguments.data).subset(arguments.images).batches(arguments.images)))[0]
    names: dict[str, str] = {}
    for source in sources:
        if not isinstance(source, Path):
            names |= _names(source)
    ends, layers = compare(reference, candidate, cases(reference.input_shape, images), names)
    worst = max(row.relative for row in ends)
    passed = arguments.tolerance is None or worst <= arguments.tolerance
    if arguments.json:
        print_json(
            {
                "reference": arguments.reference,
                "candidate": arguments.candidate,
                "outputs": [row.to_json() for row in ends],
                "layers": [row.to_json() for row in layers],
                "worst_relative": worst,
                "tolerance": arguments.tolerance,
                "passed": passed,
            }
        )
        return 0 if passed else 1
    _table("Outputs", [(row.case, row) for row in ends])
    if layers:
        _table("Values that both know by name, each on the input where it differs most", [(d.name, d) for d in layers])
    verdict = "" if arguments.tolerance is None else f": {'within' if passed else 'EXCEEDS'} {arguments.tolerance:g}"
    say(f"worst relative error of an output {worst:.2e}{verdict}")
    return 0 if passed else 1


def _source(text: str, arguments: argparse.Namespace) -> Hub | Path:
    """Files are run as they are; everything else is loaded into a hub."""
    path = Path(text)
    if path.suffix in (".onnx", ".tflite"):
        return path
    return open_model(text, arguments).hub


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
