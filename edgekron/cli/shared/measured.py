"""Tables of measurements: latency, memory, layers, arenas, proofs of memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .output import count, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgekron.exporters.layer_times import LayerTimes
    from edgekron.runtimes import Interval, Report
    from edgekron.runtimes.agent.arena import Arena
    from edgekron.runtimes.devices import Device
    from edgekron.runtimes.probes import Proof

_STAGES = {"start": "before the runtime was there", "load": "while loading", "run": "while running", "done": "-"}


def print_latency(report: Report) -> None:
    """One row a file: warm latency, the ratio to the first, and the paced latency if a pace was asked for."""
    paced = any(file.paced for file in report.files)
    shown = _shown(report)
    rows = []
    for row in report.table():
        numbers = [shown(row[name]) for name in ("median", "mad", "p5", "p95", "p99")]
        numbers.insert(1, f"[{shown(row['interval'].low)}, {shown(row['interval'].high)}]")
        pace = [shown(row["paced"].median if row["paced"] else None)] if paced else []
        rows.append([row["file"], row["runtime"], *numbers, _speedup(row["speedup"]), *pace])
    plural = "" if report.threads == 1 else "s"
    what, ratio = ("Instructions", "times fewer") if "clock" in report.environment else ("Latency", "times as fast")
    print_table(
        f"{what}, {report.threads} thread{plural}, {report.device}",
        [
            "<file",
            "<runtime",
            "median",
            "",
            "MAD",
            "5 %",
            "95 %",
            "99 %",
            ratio,
            *(["paced"] if paced else []),
        ],
        rows,
        "In brackets: 95 % interval. 5, 95 and 99 % are percentiles of single inferences. The ratio is that of the "
        "lower quartiles, round by round; what other programs do reaches the medians first."
        + (" Paced: the median at a fixed rate, asleep in between." if paced else ""),
    )


def print_memory(report: Report) -> None:
    """One row a file: cold start, and the five numbers of memory."""
    shown = _shown(report)
    rows = []
    for row in report.table():
        memory = row["memory"]
        numbers = (memory.file, memory.runtime, memory.loaded, memory.peak, memory.steady)
        rows.append([row["file"], shown(row["cold"]), shown(row["first"]), *map(megabytes, numbers)])
    print_table(
        "Cold start, and memory in MB (1,000,000 bytes)",
        ["<file", "ready in", "first run", "file", "runtime only", "loaded", "peak", "steady"],
        rows,
        "Resident memory of the whole process; the model's own share is steady less runtime only.",
    )


def print_layers(tables: Sequence[LayerTimes]) -> None:
    """One table a file: the time of each source layer."""
    for table in tables:
        total = sum(table.seconds.values())
        rows = [
            [name or "(no layer)", duration(seconds), f"{seconds / total:.1%}" if total else "-"]
            for name, seconds in sorted(table.seconds.items(), key=lambda item: not item[0])
        ]
        print_table(f"Time by layer, {Path(table.file).name}", ["<layer", "time", "share"], rows, table.how)


def arenas(files: Sequence[Path], device: Device) -> dict[str, Arena]:
    """The arenas of the TFLite files among ``files``, as the device tells them."""
    from edgekron.runtimes.probes import tensor_arena

    return {str(file): tensor_arena(file, device=device) for file in files if file.suffix.lower() == ".tflite"}


def print_arenas(found: Mapping[str, Arena]) -> None:
    """One row a file: the arenas in kB."""
    rows = [
        [file, *(_kilobytes(size) for size in (arena.litert, arena.micro, arena.micro_head)), arena.note or ""]
        for file, arena in found.items()
    ]
    print_table(
        "Tensor arena in kB (1,000 bytes)",
        ["<file", "LiteRT", "microcontroller", "its activations", "<note"],
        rows,
        "LiteRT's arena is that of its own kernels: XNNPACK keeps activations to itself.",
    )


def print_proofs(proofs: Sequence[Proof]) -> None:
    """One row a file: whether it lived under the limit."""
    rows = [
        [
            proof.file,
            megabytes(proof.limit),
            proof.means,
            "lived" if proof.lived else "died",
            _STAGES[proof.stage],
            megabytes(proof.peak),
        ]
        for proof in proofs
    ]
    print_table(
        "Proof of memory, in MB (1,000,000 bytes)",
        ["<file", "limit", "<means", "<verdict", "<died", "peak counted"],
        rows,
        "The limit holds the whole process, Python and the runtime included. A control group (cgroup) counts memory in "
        "RAM, libraries that other programs brought there excepted; rlimit counts private memory asked for.",
    )


def duration(seconds: float | None) -> str:
    """Three significant digits in s, ms or us."""
    if seconds is None:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds * 1e6:#.3g}".rstrip(".") + " us"


def _shown(report: Report) -> Callable[[float | None], str]:
    """How a report's times are written: an emulated machine's are numbers of instructions, a billion a second."""
    if "clock" not in report.environment:
        return duration
    return lambda time: "-" if time is None else f"{count(1e9 * time)} instr."


def megabytes(number: int | None) -> str:
    """Bytes in MB with two decimals."""
    return "-" if number is None else f"{number / 1e6:.2f}"


def _kilobytes(number: int | None) -> str:
    return "-" if number is None else f"{number / 1e3:.1f}"


def _speedup(interval: Interval | None) -> str:
    if interval is None:
        return "reference"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
