"""Low rank and sparse channels in one training stage, against pruning, factorizing and training one after the other.

    python benchmarks/edp.py resnet56 [--ratio 2] [--epochs 5] [--taught pruned]

Networks with that many times fewer MACs, each trained for as many epochs, with the same settings:

    edp             learns its ranks and channels in these epochs
    edp-any-width   and they are left as they come, not rounded to numbers that run well
    separate        pruned and factorized by calibration images (absorb+channel-svd), then trained
    pruned          pruned alone (absorb), then trained

Those that ``--taught`` names are trained once more, with the dense network as teacher. All are made by the commands
that a user would give. Top-1 is that of the exported files on all 10,000 test images, in ONNX Runtime and in LiteRT;
latency that of one image on one thread, against the dense files in interleaved runs. The folders stay in ``runs/edp``,
and the same command goes on where it was killed. It writes ``benchmarks/results/edp-MODEL.json`` and
``docs/edp-MODEL.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from commands import Commands
from publishing import CALIBRATION, TEST, publish

ROOT = Path(__file__).resolve().parent.parent
TRAIN = "fashion-mnist:train"
PACKAGES = ("edgekron", "torch", "onnxruntime", "ai-edge-litert", "numpy")
#: The method that each network is compressed by before it is trained.
BEFORE = {"separate": "absorb+channel-svd", "pruned": "absorb"}
#: Options of those that are compressed while they are.
WHILE = {"edp": (), "edp-any-width": ("--any-width",)}
NETWORKS = (*WHILE, *BEFORE)
#: What the name of a network that has had a teacher ends with.
TAUGHT = "-taught"
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}


def main() -> int:
    """Runs what is not there yet, and writes; exit code 1 when a command fails, 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as resnet56")
    parser.add_argument("--ratio", type=float, default=2.0, metavar="R", help="R times fewer MACs (default: 2)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each (default: 5)")
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate (default: 0.02)")
    parser.add_argument("--train", type=int, default=60_000, help="training images (default: all 60,000)")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a file (default: 2)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS, help="default: all")
    parser.add_argument("--taught", nargs="+", default=(), choices=NETWORKS, help="which have a teacher, too")
    parser.add_argument("--runs", type=Path, default=Path("runs/edp"), help="where finished work is kept")
    arguments = parser.parse_args()
    try:
        return publish(f"edp-{arguments.model}", lambda: measure(arguments), table)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error}\n{error.stderr}\n")
        return 1


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All networks: made, exported, verified, evaluated and benched."""
    name = f"{arguments.model}-{arguments.ratio:g}x-{arguments.epochs}-{arguments.rate:g}-{arguments.train}"
    folder = (arguments.runs / f"{name}-{arguments.calibration}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = Commands(folder)
    rows = [{"name": "dense", **costs(run.json("inspect", arguments.model)["layers"])}]
    names = [*arguments.networks, *(f"{network}{TAUGHT}" for network in arguments.taught)]
    rows += [{"name": name, **made(run, arguments, name)} for name in names]
    report = {}
    for target in RUNTIMES:
        files = [f"{row['name']}.{target}" for row in rows]
        for row, file in zip(rows, files, strict=True):
            source = arguments.model if row["name"] == "dense" else row["name"]
            if not (folder / file).exists():
                run("export", source, "--to", target, "-o", file)
            row[f"verified_{target}"] = run.json("verify", source, file, "--tolerance", "1e-4")
        for row, found in zip(rows, evaluated(run, files, arguments), strict=True):
            row[f"top1_{target}"] = 100 * found["top1"]
        run("bench", *files, "--seconds", f"{arguments.seconds:g}", "--json", f"bench-{target}.json", "--force")
        report[target] = json.loads((folder / f"bench-{target}.json").read_text())
        speedups = [None, *report[target]["speedups"]]
        for row, one, speedup in zip(rows, report[target]["files"], speedups, strict=True):
            row[f"latency_{target}"], row[f"speedup_{target}"] = one["latency"], speedup
    return {
        "model": arguments.model,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": report["onnx"]["environment"],
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "settings": {key: value for key, value in vars(arguments).items() if key != "runs"},
        "data": {"calibration": CALIBRATION, "train": TRAIN, "images": TEST},
        "units": {"latency": "second", "top1": "percent", "seconds": "seconds"},
        "commands": run.ran,
        "rows": rows,
    }


def made(run: Commands, arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """What is known of a trained network, which is made where it is not there yet."""
    network = name.removesuffix(TAUGHT)
    method, source = BEFORE.get(network), arguments.model if network in WHILE else f"{network}-before"
    if method and not (run.folder / source).exists():
        data = ("--data", CALIBRATION, "--images", f"{arguments.calibration}")
        run("compress", arguments.model, "--method", method, "--ratio", f"{arguments.ratio:g}", *data, "-o", source)
    if not (run.folder / name).exists():
        how = ["--method", "edp", "--ratio", f"{arguments.ratio:g}", *WHILE[network]] if network in WHILE else []
        how += ["--teacher", arguments.model] if name.endswith(TAUGHT) else []
        run(
            "finetune", source, *how, "--data", TRAIN, "--images", f"{arguments.train}", "--epochs",
            f"{arguments.epochs}", "--lr", f"{arguments.rate:g}", "-o", name,
        )  # fmt: skip
    report = json.loads((run.folder / name / "report.json").read_text())
    facts: dict[str, Any] = {"totals": report["totals"], "training": report["training"]}
    facts |= {unit: total["compressed"] for unit, total in report["totals"].items()}
    if method:
        before = f"{source}.onnx"
        if not (run.folder / before).exists():
            run("export", source, "--to", "onnx", "-o", before)
        facts["top1_before"] = 100 * evaluated(run, [before], arguments)[0]["top1"]
    return facts


def evaluated(run: Commands, files: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Top-1 of files."""
    run("evaluate", *files, "--data", TEST, "--limit", f"{arguments.images}", "--json", "top1.json", "--force")
    found: list[dict[str, Any]] = json.loads((run.folder / "top1.json").read_text())["files"]
    return found


def costs(layers: list[dict[str, Any]]) -> dict[str, int]:
    """MACs and weights of a dense network."""
    return {unit: sum(layer[unit] for layer in layers) for unit in ("macs", "parameters")}


def table(result: dict[str, Any]) -> str:
    """The networks as Markdown."""
    dense, settings = result["rows"][0], result["settings"]
    setting = (
        f"`{result['command']}`, {result['date'][:10]}: {settings['epochs']} epochs of {settings['train']:,} images of "
        f"Fashion-MNIST each; {settings['images']:,} test images; latency of one image on one thread "
        f"against the dense file, with its 95 % interval; ONNX Runtime {result['versions']['onnxruntime']}, LiteRT "
        f"{result['versions']['ai-edge-litert']}."
    )
    heads = ["network", "MACs", "parameters", "top-1 before training", "after: ONNX Runtime", "LiteRT", "lost"]
    heads += ["as fast: ONNX Runtime", "LiteRT", "trained in"]
    lines = [
        f"# Low rank and sparse channels in one stage: {result['model']}",
        "",
        setting,
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for row in result["rows"]:
        seconds = sum(stage["seconds"] for stage in row.get("training", []))
        speeds = [row[f"speedup_{target}"] for target in RUNTIMES]
        saved = [(row[unit] / 1e6, 100 - 100 * row[unit] / dense[unit]) for unit in ("macs", "parameters")]
        cells = [
            row["name"],
            *(f"{left:.2f} M (-{percent:.1f} %)" for left, percent in saved),
            f"{row['top1_before']:.2f}" if "top1_before" in row else "",
            *(f"{row[f'top1_{target}']:.2f}" for target in RUNTIMES),
            f"{dense['top1_onnx'] - row['top1_onnx']:.2f}",
            *("" if s is None else f"{s['value']:.2f} ({s['low']:.2f} to {s['high']:.2f})" for s in speeds),
            f"{seconds / 60:.0f} min on {row['training'][-1].get('device', 'an unknown device')}" if seconds else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
