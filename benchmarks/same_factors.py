"""Whether two checkouts of this repository compress alike: the same plans, and the same factors to the last bit.

    python -m benchmarks.same_factors BEFORE AFTER [--network sixconv ...] [--family kronecker ...]

BEFORE and AFTER are folders of checkouts. Each trained network is compressed by each family in both, by the command
``edgekron compress`` in a process of its own, which imports that checkout alone: half the MACs, 64 calibration images,
one thread. Compared are the text of the plan, every factor and bias of every factorized layer, byte by byte, and all
other tensors of the compressed graph. The table is printed; exit code 1 when anything differs.

Results stay in the folder ``--work``, under a hash of the checkout's source: the same command goes on where it was
killed, and an unchanged checkout is not run again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx

from benchmarks.common import table as tables
from benchmarks.common.harness import parser_of
from benchmarks.common.kept import kept
from benchmarks.common.networks import CALIBRATION
from benchmarks.common.record import Row
from edgekron.errors import UserError
from edgekron.planning.candidates import METHODS

NETWORKS = ("sixconv", "resnet20", "resnet32", "resnet56")
RATIO, IMAGES = 2, 64
#: Folders of a checkout that are packages below ``edgekron`` once it is installed.
MAPPED = ("exporters", "runtimes", "models")
#: The domain of the graph's nodes that are factorized layers.
DOMAIN = "edgekron"


def main() -> int:
    """Compares and prints; 1 when anything differs, 2 for bad input."""
    parser = parser_of("same_factors", __doc__)
    parser.add_argument("before", type=Path, help="folder of the one checkout")
    parser.add_argument("after", type=Path, help="folder of the other")
    parser.add_argument("--network", nargs="+", default=NETWORKS, choices=NETWORKS, help="default: all")
    parser.add_argument("--family", nargs="+", default=tuple(METHODS), choices=METHODS, help="default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/same-factors"), help="where finished work is kept")
    arguments = parser.parse_args()
    try:
        sides = [Checkout(folder, arguments.work) for folder in (arguments.before, arguments.after)]
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    rows = []
    for network in arguments.network:
        for family in arguments.family:
            before, after = (side.compressed(network, family) for side in sides)
            rows.append({"network": network, "family": family, **compared(before, after)})
            print(tables.row(cells(rows[-1])), flush=True)
    print("", table(rows), sep="\n")
    return 0 if all(row["same"] for row in rows) else 1


class Checkout:
    """A checkout that compresses networks. Raises ``UserError`` for a folder that is none."""

    def __init__(self, folder: Path, work: Path) -> None:
        if not (folder / "edgekron" / "cli" / "main.py").exists():
            raise UserError(f"{folder} is no checkout of this repository: it has no edgekron/cli/main.py.")
        self._kept = (work / _digest(folder)).resolve()
        self._site = self._kept / "site"
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self._site),
            "PYTHONPYCACHEPREFIX": str(self._kept / "bytecode"),
        }
        _lay_out(folder.resolve(), self._site)
        found = Path(self._python("-c", "import edgekron; print(edgekron.__file__)").stdout.strip())
        if not found.is_relative_to(self._site):
            raise UserError(f"edgekron is imported from {found.parent}, not from the checkout {folder}.")

    def compressed(self, network: str, family: str) -> Row:
        """A compressed network: plan, hashes of all tensors and seconds, or the sentence of a refusal."""
        row: Row = kept(self._kept / f"{network}-{family}.json", lambda: self._compress(network, family))
        return row

    def _compress(self, network: str, family: str) -> Row:
        folder = self._kept / "compressed"
        words = ["compress", network, "--method", family, "--ratio", f"{RATIO}", "--data", CALIBRATION]
        words += ["--images", f"{IMAGES}", "-o", str(folder), "--force"]
        start = time.perf_counter()
        done = self._python("-m", "edgekron.cli.main", *words)
        seconds = round(time.perf_counter() - start, 1)
        if done.returncode == 2:
            return {"refused": done.stderr.strip(), "seconds": seconds}
        done.check_returncode()
        layers, rest = tensors(folder / "hub.onnx")
        return {"plan": (folder / "plan.toml").read_text(), "layers": layers, "rest": rest, "seconds": seconds}

    def _python(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *words]
        return subprocess.run(
            program, cwd=self._kept, env=self._environment, check=False, capture_output=True, text=True
        )


def _digest(folder: Path) -> str:
    """A hash of all modules of a checkout."""
    found = hashlib.sha256()
    for path in sorted(path for room in ("edgekron", *MAPPED) for path in (folder / room).rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _lay_out(folder: Path, site: Path) -> None:
    """Makes ``site`` a folder to import the checkout from, laid out as an installed wheel is."""
    shutil.rmtree(site, ignore_errors=True)
    package = site / "edgekron"
    package.mkdir(parents=True)
    for path in [*(folder / "edgekron").iterdir(), *(folder / name for name in MAPPED)]:
        (package / path.name).symlink_to(path)


def tensors(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Hashes of all tensors of a compressed graph: by factorized layer and name, and of all others by name."""
    graph = onnx.load(path).graph
    hashes = {tensor.name: _hash(tensor) for tensor in graph.initializer}
    layers = {}
    for node in graph.node:
        if node.domain == DOMAIN:
            own = [name for name in node.input if name in hashes]
            layers[own[0].rpartition(".")[0]] = {name: hashes.pop(name) for name in own}
    return layers, hashes


def _hash(tensor: onnx.TensorProto) -> str:
    array = onnx.numpy_helper.to_array(tensor)
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()


def compared(before: Row, after: Row) -> Row:
    """Whether plans and tensors are the same, and the layers whose factors are not."""
    row: Row = {"seconds": [before["seconds"], after["seconds"]]}
    if "refused" in before or "refused" in after:
        same = before.get("refused") == after.get("refused")
        return row | {"refused": True, "same": same, "plan": same, "layers": 0, "differ": [], "rest": same}
    names = before["layers"].keys() | after["layers"].keys()
    row["differ"] = sorted(name for name in names if before["layers"].get(name) != after["layers"].get(name))
    row |= {"layers": len(after["layers"])} | {key: before[key] == after[key] for key in ("plan", "rest")}
    return row | {"same": row["plan"] and row["rest"] and not row["differ"]}


def cells(row: Row) -> list[str]:
    """One line of the table."""
    names: dict[Any, str] = {True: "same", False: "DIFFERS"}
    factors = f"DIFFER in {', '.join(row['differ'])}" if row["differ"] else "byte-identical"
    layers = "refused by both" if row.get("refused") and row["same"] else str(row["layers"])
    seconds = [f"{one:.1f}" for one in row["seconds"]]
    return [row["network"], row["family"], layers, names[row["plan"]], factors, names[row["rest"]], *seconds]


def table(rows: list[Row]) -> str:
    """All lines as Markdown."""
    heads = ["network", "family", "layers factorized", "plan", "factors", "other tensors", "s before", "s after"]
    return "\n".join([*tables.head(heads), *(tables.row(cells(row)) for row in rows)])


if __name__ == "__main__":
    sys.exit(main())
