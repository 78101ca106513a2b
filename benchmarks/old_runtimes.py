"""Whether files of every type load, and give the same, in old and small runtimes, each in an environment of its own.

    python3.11 -m venv old && old/bin/pip install "numpy<2" "onnxruntime==1.17.*" tflite-runtime==2.14.0
    python3.11 -m venv micro && micro/bin/pip install --pre tflite-micro
    python -m benchmarks.old_runtimes --old old/bin/python --micro micro/bin/python

A bundled trained network, dense and compressed, is exported in every type, to ONNX in operator set 17. Each file runs
here, in the newest runtimes, and there (``common/elsewhere.py``) on the same test images. Each file is judged by the
signal over the difference of the two, in dB: at least 80 for float files and 30 for those that compute in integers,
whose kernels may round otherwise. The record is ``old_runtimes``; exit code 1 when a file that should run does not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import parser_of
from benchmarks.common.networks import TEST, calibration, trained
from benchmarks.common.record import ROOT, Place, made
from edgekron.compression.compressor import compress
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import DTYPES, Quantization
from edgekron.exporters.verify.compare import difference
from edgekron.models import datasets
from edgekron.runtimes.agent import backends

OPSET, CALIBRATION, COMPARED = 17, 128, 32
LEAST = {"float32": 80.0, "float16": 80.0, "int8-dynamic": 30.0, "int8": 30.0}
#: Runtime, the distribution that has it, the option with its interpreter, and the files that it reads.
ELSEWHERE = (
    ("onnxruntime", "onnxruntime", "old", "onnx"),
    ("tflite-runtime", "tflite-runtime", "old", "tflite"),
    ("tflite-micro", "tflite_micro", "micro", "tflite"),
)
#: What tflite-micro's own kernels leave out: weights of another type than the values that they meet.
NOT_THERE = {("tflite-micro", "float16"), ("tflite-micro", "int8-dynamic")}


def main() -> int:
    """Exports, runs and compares; 1 when a file that should run does not, or differs."""
    parser = parser_of("old_runtimes", __doc__)
    parser.add_argument("--old", type=Path, required=True, help="Python with onnxruntime 1.17 and tflite-runtime")
    parser.add_argument("--micro", type=Path, required=True, help="Python with tflite-micro")
    parser.add_argument("--network", default="sixconv", help="a bundled trained network (default: sixconv)")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekron-old-") as folder:
        rows = list(_rows(Path(folder), arguments))
    result = made("onnxruntime", "ai-edge-litert") | {
        "network": arguments.network,
        "opset": OPSET,
        "units": {"sqnr_db": "of the outputs there against those here; null where they are equal bit by bit"},
        "rows": rows,
    }
    Place("old_runtimes", arguments.output).write(result)
    return 0 if all(row["as_expected"] for row in rows) else 1


def _rows(folder: Path, arguments: argparse.Namespace) -> Any:
    """One row for each file and runtime that reads it."""
    name = arguments.network
    _, dense = trained(name)
    networks = {"dense": dense, "compressed": compress(dense, model=name, ratios={"macs": 3.0}).hub}
    ranges = calibration(CALIBRATION)
    (images, _), *_ = datasets.load(TEST).subset(COMPARED).batches(COMPARED)
    for network, hub in networks.items():
        for dtype in DTYPES:
            for target in ("onnx", "tflite"):
                file = folder / f"{network}-{dtype}.{target}"
                how = Quantization(dtype, ranges if dtype == "int8" else ())
                export(hub, file, ExportSettings(how, opset=OPSET))
                here = backends.run_nchw(backends.load(file), images)[0]
                np.save(folder / "in.npy", images if target == "onnx" else images.transpose(0, 2, 3, 1).copy())
                for runtime, package, option, reads in ELSEWHERE:
                    if reads != target:
                        continue
                    python = str(getattr(arguments, option))
                    said = _run(python, runtime, file, folder)
                    row = {"network": network, "dtype": dtype, "runtime": f"{runtime} {_version(python, package)}"}
                    row |= _verdict(said, folder, here, dtype, (runtime, dtype) not in NOT_THERE)
                    print(row, flush=True)
                    yield row


def _run(python: str, runtime: str, file: Path, folder: Path) -> str | None:
    """Runs the file elsewhere; what went wrong, or None."""
    words = [python, str(ROOT / "benchmarks" / "common" / "elsewhere.py"), runtime, str(file)]
    done = subprocess.run(
        [*words, str(folder / "in.npy"), str(folder / "out.npy")], check=False, capture_output=True, text=True
    )
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else None


def _verdict(said: str | None, folder: Path, here: np.ndarray, dtype: str, runs: bool) -> dict[str, Any]:
    if said is not None:
        return {"runs": False, "said": said, "as_expected": not runs}
    found = difference("", "", here, np.load(folder / "out.npy"))
    sqnr = found.sqnr_db if np.isfinite(found.sqnr_db) else None
    return {"runs": True, "sqnr_db": sqnr, "as_expected": runs and (sqnr is None or sqnr >= LEAST[dtype])}


def _version(python: str, package: str) -> str:
    words = [python, "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
