"""``edgekron export``: a model or a compressed folder to a standard ONNX or TFLite file."""

from __future__ import annotations

import argparse

from ._output import print_json, say
from ._sources import add_model, open_model

FORMATS = ("onnx", "tflite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, which format, and where to."""
    add_model(parser)
    parser.add_argument("--to", required=True, choices=FORMATS, help="format of the file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--opset", type=int, default=20, help="ONNX operator set (default: 20)")
    parser.add_argument("--batch", type=int, default=1, help="batch of a TFLite file, which is fixed (default: 1)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Exports and says what was written."""
    from pathlib import Path

    from edgekron.errors import UserError
    from edgekron.files import refuse_existing

    path = Path(arguments.output)
    if path.suffix != f".{arguments.to}":
        raise UserError(f"{path} should end in .{arguments.to}; runtimes go by the name.")
    refuse_existing(path, arguments.force)
    hub = open_model(arguments.model, arguments).hub
    if arguments.to == "onnx":
        from edgekron.exporters.onnx import export_onnx

        export_onnx(hub, path, opset=arguments.opset, force=arguments.force)
    else:
        from edgekron.exporters.tflite import export_tflite

        export_tflite(hub, path, batch=arguments.batch, force=arguments.force)
    size = path.stat().st_size
    if arguments.json:
        print_json({"file": str(path), "bytes": size})
    else:
        say(f"{path}: {size:,} bytes")
    return 0
