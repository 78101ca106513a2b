"""One HTML file that shows ``Findings``: no script, nothing loaded from elsewhere, fit for print and dark screens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from . import charts
from .charts import Bar
from .findings import DEFINITIONS

if TYPE_CHECKING:
    from .findings import Findings, RuntimeFindings

#: Rows of the memory part of the table: field and title.
_MEMORY = {
    "runtime": "Runtime only, MB",
    "loaded": "Loaded, MB",
    "peak": "Peak, MB",
    "steady": "Steady, MB",
}


def render(findings: Findings) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        findings=findings,
        headlines=_headlines(findings),
        rows=_rows(findings),
        pictures=_pictures(findings),
        captions=_captions(findings),
        facts=_facts(findings.environment),
        definitions=DEFINITIONS,
        other=None if findings.other_seconds is None else [microseconds(s) for s in findings.other_seconds],
        microseconds=microseconds,
        without_version=_without_version,
    )


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def microseconds(seconds: float) -> str:
    """Whole microseconds."""
    return f"{1e6 * seconds:,.0f}"


def megabytes(size: int | None) -> str:
    """Bytes in megabytes, or a dash."""
    return "-" if size is None else f"{size / 1e6:.1f}"


def _captions(findings: Findings) -> dict[str, str]:
    """What to know about a picture, by its place."""
    threads = f"{findings.threads} thread{'' if findings.threads == 1 else 's'}"
    return {
        "latency": f"{threads}. Whiskers: 5 % to 95 % of the inferences; one that reaches the edge goes on beyond it.",
        "spread": f"{threads}. What takes longer than the edge is not shown.",
        "top1": f"{findings.images:,} images of {findings.data}. Whiskers: 95 % interval. The axis starts above zero.",
        "memory": "Resident memory of the whole process; the model's own share is steady less runtime only.",
    }


def _headlines(findings: Findings) -> list[tuple[str, str]]:
    """The few numbers that matter most, each with its name."""
    first = findings.runtimes[0]
    lines = [
        (f"{first.mac_ratio:.2f}x", "fewer multiply-accumulates"),
        (f"{first.file_ratio:.2f}x", "smaller file"),
    ]
    lines += [(f"{r.speedup['value']:.2f}x", f"as fast in {r.title}") for r in findings.runtimes if r.speedup]
    if first.dense.top1 is not None and first.compressed.top1 is not None:
        lines.append((_signed(first.compressed.top1 - first.dense.top1), "points of top-1"))
    return lines


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def _rows(findings: Findings) -> list[tuple[str, list[str]]]:
    """The summary table: for each runtime dense, compressed, and how they compare."""
    rows: list[tuple[str, list[str]]] = []

    def add(title: str, cells: list[tuple[str, str, str] | None]) -> None:
        if any(cells):
            rows.append((title, [text for cell in cells for text in (cell or ("", "", ""))]))

    runtimes = findings.runtimes
    add("MACs, million", [_ratio(r.dense.macs, r.compressed.macs, 1e6, f"{r.mac_ratio:.2f}x fewer") for r in runtimes])
    add("File, kB", [_ratio(r.dense.bytes, r.compressed.bytes, 1e3, f"{r.file_ratio:.2f}x smaller") for r in runtimes])
    add("Latency, ms", [_latency(r) for r in runtimes])
    add("5 % to 95 %, ms", [_spread(r) for r in runtimes])
    add("Top-1, %", [_accuracy(r) for r in runtimes])
    add("Start to ready, ms", [_pair(r, lambda m: None if m.cold is None else f"{1e3 * m.cold:.0f}") for r in runtimes])
    for field, title in _MEMORY.items():
        add(title, [_pair(r, lambda m, f=field: megabytes(m.memory[f]) if m.memory else None) for r in runtimes])
    add("Off its network", [_pair(r, lambda m: None if m.relative is None else f"{m.relative:.2g}") for r in runtimes])
    return rows


def _ratio(dense: int, compressed: int, unit: float, compared: str) -> tuple[str, str, str]:
    return f"{dense / unit:,.1f}", f"{compressed / unit:,.1f}", compared


def _latency(runtime: RuntimeFindings) -> tuple[str, str, str] | None:
    dense, compressed, speedup = runtime.dense.latency, runtime.compressed.latency, runtime.speedup
    if dense is None or compressed is None or speedup is None:
        return None
    compared = f"{speedup['value']:.2f}x as fast ({speedup['low']:.2f} to {speedup['high']:.2f})"
    return f"{1e3 * dense['median']:.3g}", f"{1e3 * compressed['median']:.3g}", compared


def _spread(runtime: RuntimeFindings) -> tuple[str, str, str] | None:
    def text(latency: Mapping[str, float]) -> str:
        return f"{1e3 * latency['p5']:.3g} to {1e3 * latency['p95']:.3g}"

    return _pair(runtime, lambda measured: None if measured.latency is None else text(measured.latency))


def _accuracy(runtime: RuntimeFindings) -> tuple[str, str, str] | None:
    dense, compressed = runtime.dense.top1, runtime.compressed.top1
    if compressed is None:
        return None
    if dense is None:
        return "", f"{compressed:.2f}", ""
    return f"{dense:.2f}", f"{compressed:.2f}", f"{_signed(compressed - dense)} points"


def _pair(runtime: RuntimeFindings, text: Any) -> tuple[str, str, str] | None:
    dense, compressed = text(runtime.dense), text(runtime.compressed)
    return None if dense is None and compressed is None else (dense or "", compressed or "", "")


def _pictures(findings: Findings) -> dict[str, Markup]:
    """SVG by place in the page; what was not measured has none."""
    pictures = {}
    layers = findings.layers
    names = [layer.name for layer in layers]
    if latencies := [(_without_version(r.title), pair) for r in findings.runtimes if (pair := _latency_bars(r))]:
        pictures["latency"] = charts.latencies(latencies)
    if spread := [(_without_version(r.title), both) for r in findings.runtimes if (both := _distributions(r))]:
        pictures["spread"] = charts.distributions(spread)
    if ladders := [(_without_version(r.title), ladder) for r in findings.runtimes if (ladder := _ladder(r))]:
        pictures["memory"] = charts.memory_ladder(ladders)
    if accuracies := [
        (_without_version(r.title), pair) for r in findings.runtimes if (pair := _accuracy_bars(r, findings.images))
    ]:
        pictures["top1"] = charts.accuracies(accuracies)
    if any(layer.error is not None for layer in layers):
        pictures["errors"] = charts.errors(names, [None if e.error is None else 100 * e.error for e in layers])
    before, after = ([layer.macs[i] / 1e6 for layer in layers] for i in (0, 1))
    pictures["macs"] = charts.by_layer(names, before, after, "Work by layer", "million multiply-accumulates")
    timed = [layer.seconds for layer in layers if layer.seconds is not None]
    if len(timed) == len(layers) and timed:
        others = [findings.other_seconds] if findings.other_seconds else []
        before, after = ([1e6 * pair[i] for pair in (*timed, *others)] for i in (0, 1))
        titles = [*names, *["everything else" for _ in others]]
        pictures["time"] = charts.by_layer(titles, before, after, "Time by layer, ONNX Runtime", "microseconds")
    # Drawn from escaped text by matplotlib: safe to place as it is.
    return {place: Markup(svg) for place, svg in pictures.items()}  # noqa: S704


def _without_version(title: str) -> str:
    """A runtime's name without its version."""
    return title.rsplit(" ", 1)[0]


def _distributions(runtime: RuntimeFindings) -> tuple[list[float], list[float]] | None:
    dense, compressed = runtime.dense.distribution, runtime.compressed.distribution
    if not dense or not compressed:
        return None
    return [1e3 * second for second in dense], [1e3 * second for second in compressed]


def _ladder(runtime: RuntimeFindings) -> list[tuple[str, tuple[float, float]]]:
    """The rungs that both files have, in megabytes."""
    dense, compressed = runtime.dense.memory or {}, runtime.compressed.memory or {}
    rungs = {"file": "file", "runtime": "runtime only", "loaded": "loaded", "peak": "peak", "steady": "steady"}
    pairs = ((title, dense.get(name), compressed.get(name)) for name, title in rungs.items())
    return [(title, (a / 1e6, b / 1e6)) for title, a, b in pairs if a is not None and b is not None]


def _latency_bars(runtime: RuntimeFindings) -> tuple[Bar, Bar] | None:
    def bar(latency: Mapping[str, float]) -> Bar:
        median = latency["median"]
        return Bar(1e3 * median, 1e3 * latency["p5"], 1e3 * latency["p95"], milliseconds(median))

    dense, compressed = runtime.dense.latency, runtime.compressed.latency
    return None if dense is None or compressed is None else (bar(dense), bar(compressed))


def _accuracy_bars(runtime: RuntimeFindings, images: int) -> tuple[Bar, Bar] | None:
    def bar(percent: float) -> Bar:
        margin = 1.96 * math.sqrt(percent * (100 - percent) / images)
        return Bar(percent, percent - margin, percent + margin, f"{percent:.2f} %")

    dense, compressed = runtime.dense.top1, runtime.compressed.top1
    if dense is None or compressed is None or not images:
        return None
    return bar(dense), bar(compressed)


def _facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment as words; lists joined, memory in bytes made readable."""
    facts = []
    for name, value in environment.items():
        if name in ("memory", "swap"):
            text = f"{value / 1e9:.1f} GB"
        elif isinstance(value, Mapping):
            text = ", ".join(sorted({str(v) for v in value.values()}))
        elif isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value)
        if text:
            facts.append((name.replace("_", " "), text))
    return facts
