"""``edgekron demo``: a bundled network all the way to files that run, with everything measured on the way."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .shared.output import print_json, progress_bars, say

_CALIBRATION, _TEST = "fashion-mnist:calibration", "fashion-mnist:test"
_IMAGES = 2048
#: What the folder holds.
_FILES = frozenset(
    ("compressed", "compressed.onnx", "compressed.tflite", "dense.onnx", "dense.tflite", "demo.json", "report.html")
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the ratios, and the folder to write."""
    parser.add_argument("-o", "--output", default="demo", metavar="DIR", help="folder to write (default: demo)")
    parser.add_argument("--model", default="sixconv", help="a bundled trained network (default: sixconv)")
    parser.add_argument("--ratio", type=float, default=4.0, metavar="R", help="R times fewer MACs (default: 4)")
    parser.add_argument("--params", type=float, default=4.0, metavar="R", help="R times fewer parameters (default: 4)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="timed seconds a file (default: 4)")
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Compresses, exports, verifies, evaluates, measures; exit code 1 when an exported file differs too much from its
    network.

    The folder appears whole at the end, or not at all when a step fails. When a check does not hold, the folder is
    written all the same, to show the check.
    """
    from edgekron import graph, models
    from edgekron.compression import artifact
    from edgekron.compression.compressor import compress
    from edgekron.errors import UserError
    from edgekron.files import new_folder, refuse_existing
    from edgekron.models import datasets
    from edgekron.models.datasets import calibration_batches
    from edgekron.report import render
    from edgekron.report.gather import ReportEffort, ReportSubject, gather

    from .shared.findings import show

    refuse_existing(arguments.output, arguments.force, _FILES)
    trained = models.facts(arguments.model) if arguments.model in models.NETWORKS else None
    if trained is None or trained["data"] != "fashion-mnist":
        known = {name: models.facts(name) for name in models.NETWORKS}
        names = [name for name, one in known.items() if one is not None and one["data"] == "fashion-mnist"]
        raise UserError(f"the demo has no trained network {arguments.model!r}; it can show {', '.join(names)}.")
    if not arguments.seconds > 0:
        raise UserError(f"--seconds {arguments.seconds:g} must be above 0.")
    module = models.load(arguments.model)
    dense = graph.load(module, input_shape=models.NETWORKS[arguments.model].input_shape)
    with progress_bars() as progress, new_folder(arguments.output, arguments.force, replaces=_FILES) as folder:
        result = compress(
            dense,
            model=arguments.model,
            ratios={"macs": arguments.ratio, "parameters": arguments.params},
            data=calibration_batches(_CALIBRATION, _IMAGES),
            progress=progress,
        )
        artifact.write(result, folder / "compressed")
        findings = gather(
            ReportSubject(arguments.model, dense, result.hub, result.report),
            folder,
            ReportEffort(datasets.load(_TEST), arguments.seconds),
            about=f"Compressed without training, fitted to {result.report.calibration_images:,} calibration images. "
            "Every number on this page was measured in one run of the command below.",
            command=f"edgekron demo --model {arguments.model} --ratio {arguments.ratio:g} "
            f"--params {arguments.params:g} --seconds {arguments.seconds:g}",
            progress=progress,
        )
        (folder / "report.html").write_text(render(findings), encoding="utf-8")
        (folder / "demo.json").write_text(json.dumps(findings.to_json(), indent=1, allow_nan=False) + "\n")
    if arguments.json:
        print_json(findings.to_json())
    else:
        show(findings)
        say(f"report: {Path(arguments.output) / 'report.html'}")
    return 0 if findings.held else 1
