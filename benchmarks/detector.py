"""A detector with real weights that nobody here wrote, through all commands: the record of docs/detector.md.

    pip download --no-deps ddddocr && unzip ddddocr-*.whl ddddocr/common_det.onnx
    python benchmarks/detector.py ddddocr/common_det.onnx [--ratio 2]

The network finds characters in images (a YOLOX of 5 million weights, 416x416, bytes, blue first). The images that
calibrate it, and those that judge it, are drawn by ``scenes``: those with labels are none that calibrated. Every file
is made by ``edgekron`` as a user would, verified, benched and asked to find the characters that were drawn.
It writes ``benchmarks/results/detector.json`` and ``docs/detector.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from commands import Commands
from scenes import Count, boxes_in, draw, scene

from edgekron.files import write_file
from edgekron.runtimes.agent import backends

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("edgekron", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer")
SIZE, TEST, FIRST_TEST = 416, 100, 10_000
IMAGES = ("--data", "images", "--fit", "pad", "--pixels", "byte", "--channels", "bgr")
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}
#: What ``verify --sqnr`` asks of an int8 file, in dB: little, as positions and scores share one output and its scale.
SQNR = 10


def main() -> int:
    """Makes, verifies, benches and judges all files; exit code 1 when a command fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path, help="common_det.onnx of the package ddddocr")
    parser.add_argument("--ratio", type=float, default=2.0, metavar="R", help="R times fewer MACs (default: 2)")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="drawn to calibrate with (default: 64)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="timed seconds a file (default: 4)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekron-detector-") as folder:
        (Path(folder) / "detector.onnx").write_bytes(arguments.network.read_bytes())
        draw(Path(folder) / "images", arguments.images)
        try:
            result = measure(Commands(Path(folder)), arguments)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{error}\n{error.stderr}\n")
            return 1
    write_file(ROOT / "benchmarks" / "results" / "detector.json", json.dumps(result, indent=1) + "\n", force=True)
    write_file(ROOT / "docs" / "detector.md", document(result), force=True)
    print(document(result))
    return 0


def measure(run: Commands, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything: the compressed network, and a row for each file."""
    inspected = run.json("inspect", "detector.onnx")
    report = run.json("compress", "detector.onnx", "--ratio", f"{arguments.ratio:g}", *IMAGES, "-o", "small")
    rows = []
    for target, runtime in RUNTIMES.items():
        files = []
        for network, source in (("dense", "detector.onnx"), ("compressed", "small")):
            for dtype in ("float32", "int8"):
                file = f"{network}-{dtype}.{target}"
                files.append(file)
                data = IMAGES if dtype == "int8" else ()
                run("export", source, "--to", target, "--dtype", dtype, *data, "-o", file)
                bound = ("--sqnr", f"{SQNR}", *IMAGES) if dtype == "int8" else ("--tolerance", "1e-4")
                verdict = run.json("verify", source, file, *bound)
                rows.append({"file": file, "network": network, "dtype": dtype, "runtime": runtime, **verdict})
        run("bench", *files, "--seconds", f"{arguments.seconds:g}", "--json", f"{target}.json")
        measured = json.loads((run.folder / f"{target}.json").read_text())
        machine, warnings = measured["environment"], measured["warnings"]
        speedups = [None, *measured["speedups"]]
        for row, found, speedup in zip(rows[-len(files) :], measured["files"], speedups, strict=True):
            row |= {"bytes": found["memory"]["file"], "memory": found["memory"], "speedup": speedup}
            row["median_ms"] = 1e3 * found["latency"]["median"]
            row["found"] = vars(_found(run.folder / row["file"]))
    return {
        "network": "common_det.onnx of ddddocr",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "machine": machine,
        "warnings": warnings,
        "inspected": inspected["totals"],
        "totals": report["totals"],
        "images": {"calibration": arguments.images, "test": TEST},
        "commands": run.ran,
        "rows": [{key: value for key, value in row.items() if key != "layers"} for row in rows],
    }


def _found(file: Path) -> Count:
    """How many characters of the test images a file finds, by boxes that overlap them by half or more."""
    session, count = backends.load(file), Count()
    for seed in range(FIRST_TEST, FIRST_TEST + TEST):
        image, boxes = scene(seed, (SIZE, SIZE))
        x = np.asarray(image, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        (output,) = backends.run_nchw(session, x)
        count.add(boxes, boxes_in(output[0], SIZE))
    session.close()
    return count


def document(result: dict[str, Any]) -> str:
    """The record as Markdown."""
    totals, images = result["totals"], result["images"]
    inspected = result["inspected"]
    about = (
        f"`{result['network']}` finds characters in images: {inspected['parameters']:,} weights, "
        f"{inspected['macs'] / 1e9:.2f} G MACs. It was compressed to {totals['macs']['ratio']:.2f}x fewer MACs "
        f"({totals['parameters']['ratio']:.2f}x fewer parameters) with {images['calibration']} drawn images and no "
        f"training. *Found* counts the characters drawn in {images['test']} other images that a box of score 0.5 "
        "covers by half or more, *elsewhere* the boxes that cover none. Error and SQNR are those of `edgekron verify` "
        "against the network that the file was exported from. One thread; in brackets 95 % intervals."
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# A detector, the whole way",
        "",
        about,
        "",
        f"`python benchmarks/detector.py`, {result['date'][:10]}, {versions}.",
        "",
        "| runtime | network | type | MB | found | elsewhere | error | SQNR dB | median ms | times as fast |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        found, speedup = row["found"], row["speedup"]
        exact = row["dtype"] == "float32"
        fast = "1" if speedup is None else f"{speedup['value']:.2f} [{speedup['low']:.2f}, {speedup['high']:.2f}]"
        lines.append(
            f"| {row['runtime']} | {row['network']} | {row['dtype']} | {row['bytes'] / 1e6:.2f} | "
            f"{found['found']} of {found['drawn']} | {found['false']} | "
            f"{format(row['worst_relative'], '.1e') if exact else ''} | "
            f"{'' if exact else format(row['sqnr_db'], '.1f')} | {row['median_ms']:.1f} | {fast} |"
        )
    lines += ["", "The commands, in a folder with the network as `detector.onnx` and the images in `images/`:", ""]
    lines += [f"    {entry['command'].removesuffix(' --json')}" for entry in result["commands"]]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
