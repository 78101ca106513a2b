"""``edgekron report``: an HTML page about a folder that compress wrote."""

from __future__ import annotations

import argparse

from .shared.options import add_factory, open_source
from .shared.output import print_json, progress_bars, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the original network, and the measurements to make."""
    parser.add_argument("folder", metavar="DIR", help="a folder written by compress")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="page to write (report.html)")
    parser.add_argument(
        "--original",
        metavar="MODEL",
        help="the model that was compressed (default: the bundled one named in the plan, else the expanded kernels)",
    )
    add_factory(parser)
    parser.add_argument("--bench", action="store_true", help="measure latency, memory and the time of each layer")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="timed seconds a file (default: 2)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads to measure with (default: 1)")
    parser.add_argument("--data", metavar="DATA", help="evaluate top-1 on these images")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Exports into a temporary folder, verifies, measures what was asked for, and writes the page.

    Exit code 1 when an exported file is not close enough to its network.
    """
    import tempfile
    from pathlib import Path

    from edgekron import models
    from edgekron.compression import artifact
    from edgekron.errors import UserError
    from edgekron.files import refuse_existing, write_file
    from edgekron.models import datasets
    from edgekron.report import render
    from edgekron.report.gather import ReportEffort, ReportSubject, gather

    from .shared.findings import show

    refuse_existing(arguments.output, arguments.force)
    if not arguments.seconds > 0 or arguments.threads < 1:
        raise UserError("--seconds must be above 0 and --threads at least 1.")
    found = artifact.read(arguments.folder)
    compressed, facts, model = found.hub, found.report, found.plan.model
    data = datasets.load(arguments.data) if arguments.data else None
    original = arguments.original or (model if model in models.NETWORKS else None)
    dense = open_source(original, arguments).hub if original else compressed.dense()
    if [layer.name for layer in dense.layers()] != list(facts.layers):
        raise UserError(f"{original} has other layers than {arguments.folder}; name the model that was compressed.")
    asked = f" --bench --seconds {arguments.seconds:g} --threads {arguments.threads}" if arguments.bench else ""
    asked += f" --data {arguments.data}" if arguments.data else ""
    with progress_bars() as progress, tempfile.TemporaryDirectory(prefix="edgekron-report-") as folder:
        findings = gather(
            ReportSubject(
                model or Path(arguments.folder).name, dense, compressed, facts, original=original is not None
            ),
            Path(folder),
            ReportEffort(data, arguments.seconds if arguments.bench else None, threads=arguments.threads),
            about=f"Compressed with {facts.calibration_images:,} calibration images."
            if facts.calibration_images
            else "Compressed without calibration images.",
            command=f"edgekron report {arguments.folder}{asked}",
            progress=progress,
        )
        write_file(arguments.output, render(findings), arguments.force)
    if arguments.json:
        print_json(findings.to_json())
    else:
        show(findings)
        say(f"written to {arguments.output}")
    return 0 if findings.held else 1
