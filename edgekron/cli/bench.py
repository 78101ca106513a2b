"""``edgekron bench``: latency and memory of model files, side by side, on any device."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.files import refuse_existing

from .shared.instructions import bench_instructions
from .shared.measured import arenas, print_arenas, print_latency, print_layers, print_memory, print_proofs
from .shared.model_files import model_files, write_json
from .shared.output import progress_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgekron.runtimes.devices import Device

    from .shared.output import Steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILEs, the device, and how long to measure."""
    parser.epilog = (
        "'Times as fast' compares lower quartiles: in each round that of the first file over that of the other, then "
        "the median over the rounds. Other programs slow down the upper half of a round first, so on a busy machine it "
        "is more exact than the ratio of the two medians beside it, and not the same."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx or .tflite; the first is the reference")
    parser.add_argument(
        "--on",
        default="local",
        metavar="DEVICE",
        help="local, ssh:user@host[:port], adb:serial, emulated:pi4, or a name (edgekron devices list)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores for each file (1)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="times that the files take turns (20)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="timed seconds for each file, of at most 10,000 inferences a round (4)",
    )
    parser.add_argument(
        "--pace", type=float, default=0.0, metavar="HZ", help="also at this fixed rate, asleep in between, for 2 s"
    )
    parser.add_argument("--no-pin", action="store_true", help="do not keep the processes on fixed cores")
    parser.add_argument("--layers", action="store_true", help="also the time of each layer")
    parser.add_argument("--arena", action="store_true", help="also the tensor arenas of .tflite files")
    parser.add_argument(
        "--prove-memory",
        metavar="SIZE",
        help="run every file under this hard limit, such as 64MiB; exit code 1 when one does not live",
    )
    parser.add_argument("--limit", type=float, default=3600, metavar="S", help="give up after this time (3600)")
    parser.add_argument(
        "--patience", type=float, default=60, metavar="S", help="wait so long for another measurement there (60)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything, raw samples included")
    parser.add_argument("--force", action="store_true", help="replace OUT")


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints one row a file, and writes the JSON report."""
    from edgekron.runtimes import Measuring, bench
    from edgekron.runtimes.check import units
    from edgekron.runtimes.devices import open_device
    from edgekron.runtimes.devices.emulation.device import EmulatedDevice

    proof = arguments.prove_memory and round(units.parse(arguments.prove_memory, "bytes", "--prove-memory"))
    files = model_files(arguments.files)
    if arguments.json:
        refuse_existing(arguments.json, arguments.force)
    with closing(open_device(arguments.on)) as device:
        if isinstance(device, EmulatedDevice):
            return bench_instructions(device, files, arguments)
        with progress_bars() as bars:
            report = bench(
                files,
                Measuring(
                    threads=arguments.threads,
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                    pin=not arguments.no_pin,
                    hertz=arguments.pace,
                    limit=arguments.limit,
                    patience=arguments.patience,
                ),
                device=device,
                progress=lambda _, done, total: bars("measuring", done, total),
            )
            extras, lived = _extras(arguments, files, device, proof, bars)
    if arguments.json:
        document = report.to_json() | {name: value for name, (value, _) in extras.items()}
        write_json(arguments.json, document, arguments.force)
    print_latency(report)
    print_memory(report)
    for _, show in extras.values():
        show()
    for warning in report.warnings:
        sys.stderr.write(f"note: {warning}\n")
    return 0 if lived else 1


def _extras(
    arguments: argparse.Namespace, files: Sequence[Path], device: Device, limit: int | None, bars: Steps
) -> tuple[dict[str, tuple[object, Callable[[], None]]], bool]:
    """The measurements on demand as (value for the JSON, function that prints it), and whether every file lived."""
    from edgekron.runtimes.probes import prove_memory

    extras: dict[str, tuple[object, Callable[[], None]]] = {}
    lived = True
    if arguments.layers:
        from edgekron.exporters.layer_times import layer_times

        tables = [layer_times(file, arguments.threads, not arguments.no_pin, device, bars) for file in files]
        layers = [table.to_json() for table in tables]
        extras["layers"] = layers, lambda: print_layers(tables)
    if arguments.arena:
        found = arenas(files, device)
        extras["arenas"] = {file: vars(arena) for file, arena in found.items()}, lambda: print_arenas(found)
    if limit is not None:
        proofs = [prove_memory(f, limit, threads=arguments.threads, device=device) for f in files]
        lived = all(proof.lived for proof in proofs)
        extras["proofs"] = [proof.to_json() for proof in proofs], lambda: print_proofs(proofs)
    return extras, lived
