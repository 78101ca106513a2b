"""From a dense and a compressed network to the findings of a page: export, verify, evaluate, measure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.errors import UserError
from edgekron.planning.plan import plain
from edgekron.report import Findings, LayerFindings, Measured, RuntimeFindings

if TYPE_CHECKING:
    from edgekron.compression.report import CompressionReport, LayerReport
    from edgekron.graph import Hub
    from edgekron.models.datasets import ImageSet
    from edgekron.processes import Progress

#: An exported file must be this close to the network it was exported from.
TOLERANCE = 1e-4

#: Runtimes by key: the ending of their files, and their name and the package that has their version.
RUNTIMES = {
    "onnxruntime": ("onnx", "ONNX Runtime", "onnxruntime"),
    "litert": ("tflite", "LiteRT", "ai-edge-litert"),
}
_PACKAGES = ("edgekron", "torch", "onnx", "onnx-ir", "onnxsim", "onnxruntime", "ai-edge-litert", "numpy")
_VERIFIED_IMAGES = 32
_BATCH = 100
#: Points of a latency's distribution that are kept: every percent.
_QUANTILES = 101

Files = dict[str, tuple[Path, Path]]


@dataclass(frozen=True)
class ReportSubject:
    """A network before and after; ``report`` is the compressor's.

    ``original`` is False if the dense network is only the compressed network with expanded kernels: as costly as the
    original, but not as accurate.
    """

    model: str
    dense: Hub
    compressed: Hub
    report: CompressionReport
    original: bool = True


@dataclass(frozen=True)
class ReportEffort:
    """The measurements to make: top-1 on ``data``, latency for ``seconds`` a file; None leaves a measurement out."""

    data: ImageSet | None = None
    seconds: float | None = None
    rounds: int = 20
    threads: int = 1


def gather(
    subject: ReportSubject, folder: Path, effort: ReportEffort, *, about: str, command: str, progress: Progress
) -> Findings:
    """Exports dense and compressed files into ``folder`` and measures them.

    A format that cannot hold the network is left out with a note, as long as the other format can. Raises ``UserError``
    when neither can, and the errors of runtimes.
    """
    import onnx

    from edgekron.exporters.executed import OTHER, by_layer, executed_macs
    from edgekron.runtimes.agent import environment
    from edgekron.runtimes.agent.profile import profile

    files, notes = _export(subject, folder, progress)
    relative = _verify(subject, files, effort.data, progress)
    accuracy = _evaluate(subject, files, effort, progress)
    runtimes, checks = [], []
    for key, pair in files.items():
        ending, title, package = RUNTIMES[key]
        rows, speedup = _bench(pair, effort, title, notes, progress)
        dense, compressed = (
            Measured(
                file=path.name,
                bytes=path.stat().st_size,
                macs=sum(executed_macs(hub, ending).values()),
                relative=relative[path],
                top1=accuracy.get(path),
                **row,
            )
            for hub, path, row in zip((subject.dense, subject.compressed), pair, rows, strict=True)
        )
        runtimes.append(RuntimeFindings(key, f"{title} {metadata.version(package)}", dense, compressed, speedup))
        checks += [_check(path, relative[path]) for path in pair]
    seconds = None
    if effort.seconds is not None and "onnxruntime" in files:
        layers = subject.dense.layers()
        seconds = [by_layer(onnx.load(path), layers, profile(path)) for path in files["onnxruntime"]]
    return Findings(
        model=subject.model,
        about=about,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        command=command,
        runtimes=tuple(runtimes),
        layers=tuple(
            _layer(name, row, None if seconds is None else (seconds[0][name], seconds[1][name]))
            for name, row in subject.report.layers.items()
        ),
        environment=environment.describe(),
        versions={name: metadata.version(name) for name in _PACKAGES},
        data=effort.data.name if effort.data else None,
        images=len(effort.data) if effort.data else 0,
        threads=effort.threads,
        other_seconds=None if seconds is None else (seconds[0][OTHER], seconds[1][OTHER]),
        checks=tuple(checks),
        notes=tuple(dict.fromkeys(notes)),
    )


def _check(path: Path, relative: float) -> tuple[str, bool]:
    what = f"{path.name} is within {TOLERANCE:g} of its network (largest relative error {relative:.2g})"
    return what, relative <= TOLERANCE


def export_pair(subject: ReportSubject, ending: str, folder: Path, names: tuple[str, str]) -> tuple[Path, Path]:
    """The dense and the compressed file of one format ("onnx" or "tflite"), named ``names`` without their ending."""
    from edgekron.exporters.onnx import export_onnx
    from edgekron.exporters.tflite import export_tflite

    export = export_onnx if ending == "onnx" else export_tflite
    dense, compressed = (folder / f"{name}.{ending}" for name in names)
    export(subject.dense, dense)
    export(subject.compressed, compressed)
    return dense, compressed


def _export(subject: ReportSubject, folder: Path, progress: Progress) -> tuple[Files, list[str]]:
    files: Files = {}
    refused: list[UserError] = []
    for index, (key, (ending, _, _)) in enumerate(RUNTIMES.items()):
        progress("export", index, len(RUNTIMES))
        try:
            files[key] = export_pair(subject, ending, folder, ("dense", "compressed"))
        except UserError as error:
            refused.append(error)
    progress("export", len(RUNTIMES), len(RUNTIMES))
    if not files:
        raise refused[0]
    notes = [f"left out: {error}" for error in refused]
    if not subject.original:
        notes.append(
            "the dense files hold the expanded kernels of the compressed network; they cost what the original costs, "
            "but have not its accuracy"
        )
    return files, notes


def _verify(subject: ReportSubject, files: Files, data: ImageSet | None, progress: Progress) -> dict[Path, float]:
    """The largest relative error of each file against its hub."""
    from edgekron.exporters.verify import cases, compare, open_version

    few = data.subset(_VERIFIED_IMAGES).fed_to(subject.dense.inputs[0]) if data else None
    images = next(iter(few.batches(_VERIFIED_IMAGES)))[0] if few else None
    worst: dict[Path, float] = {}
    total = 2 * len(files)
    for index, hub in enumerate((subject.dense, subject.compressed)):
        reference = open_version(hub)
        for pair in files.values():
            progress("verify", len(worst), total)
            candidate = open_version(pair[index])
            entry = reference.inputs[0]
            ends, _ = compare(reference, candidate, cases(entry.shape, images, dtype=entry.dtype), {})
            worst[pair[index]] = max(row.relative for row in ends)
    progress("verify", total, total)
    return worst


def _evaluate(subject: ReportSubject, files: Files, effort: ReportEffort, progress: Progress) -> dict[Path, float]:
    """Top-1 in percent by file; a dense network that is not the original has none of its own to show."""
    from edgekron.exporters.entries import entries_of
    from edgekron.runtimes import top1
    from edgekron.runtimes.agent.environment import allowed_cores

    if effort.data is None:
        return {}
    threads, images = len(allowed_cores() or [0]), len(effort.data)
    found = {}
    for key, pair in files.items():
        for path in pair if subject.original else pair[1:]:
            what = f"evaluate {path.stem} in {RUNTIMES[key][1]}"
            show = partial(_show, progress, what, images)
            fed = effort.data.fed_to(entries_of(path)[0])
            result = top1(path, fed.batches(_BATCH), threads=threads, progress=show)
            found[path] = 100 * result.top1
    return found


def _show(progress: Progress, what: str, total: int, done: int) -> None:
    progress(what, done, total)


def _bench(
    pair: tuple[Path, Path], effort: ReportEffort, title: str, notes: list[str], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """Latency, memory and cold start of both files, and how many times as fast the second is."""
    import numpy as np

    from edgekron.runtimes import Measuring, bench

    if effort.seconds is None:
        return [{}, {}], None
    report = bench(
        pair,
        Measuring(threads=effort.threads, rounds=effort.rounds, seconds=effort.seconds),
        progress=lambda _, done, total: progress(f"measure in {title}", done, total),
    )
    notes += [f"{title}: {warning.replace(f'{pair[0].parent}/', '')}" for warning in report.warnings]
    rows = [
        {
            "latency": {key: getattr(file.latency, key) for key in ("median", "p5", "p95")},
            "memory": file.memory.to_json(),
            "cold": file.cold.total,
            "distribution": tuple(np.quantile(np.concatenate(file.rounds), np.linspace(0, 1, _QUANTILES)).tolist()),
        }
        for file in report.files
    ]
    (interval,) = report.speedups
    return rows, {"value": interval.value, "low": interval.low, "high": interval.high}


def _layer(name: str, row: LayerReport, seconds: tuple[float, float] | None) -> LayerFindings:
    """A layer of the compressor's report in words."""
    became, why = "stays dense", row.reason
    if row.method != "dense" and not row.shape:
        became = f"pruned by {row.method}"
    elif row.method != "dense":
        became = f"{row.method} {row.shape}, rank {plain(row.rank)}"
        why = why or f"fitted to {row.fit}"
    return LayerFindings(
        name=name,
        kernel="x".join(map(str, row.kernel or ())),
        became=became,
        why=why,
        macs=(row.dense.macs, row.now.macs),
        parameters=(row.dense.parameters, row.now.parameters),
        error=row.error,
        seconds=seconds,
    )
