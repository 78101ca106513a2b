"""``edgekron export``: a model or a compressed folder to a standard ONNX or TFLite file."""

from __future__ import annotations

import argparse

from edgekron.exporters.export import FORMATS
from edgekron.exporters.quantize import DTYPES

from .shared.options import add_data, add_model, calibration, open_source
from .shared.output import print_json, say

#: Calibration images unless the user says how many.
IMAGES = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, the format and type of the file, and its path."""
    add_model(parser)
    parser.add_argument("--to", required=True, choices=FORMATS, help="format of the file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--opset", type=int, default=20, help="ONNX operator set (default: 20)")
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="write a height and width that an ONNX model left open as those of --input-shape (TFLite files always do)",
    )
    parser.add_argument("--batch", type=int, default=1, help="batch of a TFLite file, which is fixed (default: 1)")
    parser.add_argument(
        "--layout",
        choices=("nhwc", "nchw"),
        default="nhwc",
        help="axes of the images among a TFLite file's inputs and outputs: channels last (nhwc, default) or first "
        "(nchw), whichever the source has",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="float32 (default); float16: weights; int8-dynamic: weights; int8: weights and activations, needs --data",
    )
    parser.add_argument("--integer-io", action="store_true", help="inputs and outputs of an int8 file are integers too")
    add_data(parser, IMAGES)
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Exports MODEL, and prints the file's size and the notices of the export."""
    from pathlib import Path

    from edgekron.errors import UserError
    from edgekron.exporters import ExportSettings, export
    from edgekron.exporters.quantize import Quantization
    from edgekron.files import refuse_existing

    path = Path(arguments.output)
    if path.suffix != f".{arguments.to}":
        raise UserError(f"{path} should end in .{arguments.to}; runtimes go by the name.")
    refuse_existing(path, arguments.force)
    if arguments.data and not arguments.dtype.startswith("int8"):
        raise UserError(f"a {arguments.dtype} file needs no images; leave --data out, or give --dtype int8.")
    hub = open_source(arguments.model, arguments).hub
    images = [] if arguments.dtype == "float32" else calibration(arguments, hub.inputs)
    settings = ExportSettings(
        Quantization(arguments.dtype, images, arguments.integer_io),
        opset=arguments.opset,
        fixed_size=arguments.fixed_size,
        batch=arguments.batch,
        layout=arguments.layout,
    )
    notices = export(hub, path, settings, force=arguments.force)
    size = path.stat().st_size
    if arguments.json:
        print_json({"file": str(path), "bytes": size, "dtype": arguments.dtype, "notices": notices})
    else:
        for notice in notices:
            say(f"note: {notice}")
        say(f"{path}: {size:,} bytes")
    return 0
