"""The sweep's report: networks that pass, refusals with reasons, and the missing operators that stop most families."""

from __future__ import annotations

import re
from collections import Counter

from benchmarks.common import table as tables
from benchmarks.common.record import Place, Record, Row
from edgekron.files import write_file

TARGETS = {"onnx": "ONNX", "tflite": "TFLite"}
#: The largest error of an output, over its largest value, that passes.
TOLERANCE = 1e-4
#: An error of this many times the rounding error of the untouched network is rounding, too.
ROUNDINGS = 10


def write_report(rows: dict[str, Row], skipped: dict[str, str], place: Place) -> None:
    """Writes the record and the page of ``place``."""
    families = sorted(rows.values(), key=lambda row: row["family"])
    summary = {target: _summary(families, target) for target in TARGETS}
    result = {"tolerance": TOLERANCE, "roundings": ROUNDINGS, "summary": summary}
    result |= {"skipped": skipped, "families": families}
    place.write(result)
    write_file(place.document("md"), table(result), force=True)


def reasons(outcome: Row) -> set[str]:
    """Why a target was refused, without the names of nodes: one entry for each operator and reason."""
    text = outcome.get("reason", "")
    if outcome["status"] == "wrong":
        return {text or "wrong"}
    if outcome["status"] != "refused":
        return {outcome["status"]}
    body = re.sub(r"^cannot export to TFLite(, \d+ nodes)?: ", "", text)
    found = set()
    for part in body.split(" | "):
        match = re.match(r"(\S+) node '.*?'(?: of layer '.*?')?: ([^;]*)", part)
        found.add(f"{match[1]}: {re.sub(r'[0-9]+', '#', match[2])}" if match else part.split(";")[0])
    return found


def _summary(rows: list[Row], target: str) -> Row:
    statuses = Counter(row[target]["status"] for row in rows)
    blockers: dict[str, list[tuple[str, bool]]] = {}
    for row in rows:
        if row[target]["status"] == "pass":
            continue
        why = reasons(row[target])
        for reason in why:
            blockers.setdefault(reason, []).append((row["family"], len(why) == 1))
    listed: list[Row] = [
        {"reason": reason, "unlocks": sum(alone for _, alone in hit), "blocks": [family for family, _ in hit]}
        for reason, hit in blockers.items()
    ]
    listed.sort(key=lambda entry: (-entry["unlocks"], -len(entry["blocks"]), entry["reason"]))
    return {
        "networks": len(rows),
        "share": statuses["pass"] / len(rows) if rows else 0.0,
        "by_rounding": sum(_by_rounding(row, target) for row in rows),
        "statuses": dict(statuses),
        "blockers": listed,
    }


def _by_rounding(row: Row, target: str) -> bool:
    """Whether a network passed only because float32 alone makes an error as large."""
    return row[target]["status"] == "pass" and any("rounding" in row[stage] for stage in ("import", target))


def table(result: Record) -> str:
    """The summary, and every network, as Markdown."""
    rows, summary = result["families"], result["summary"]
    tolerance, roundings = result["tolerance"], result["roundings"]
    lines = [
        "# Networks that nobody here wrote",
        "",
        f"{len(rows)} architectures: the smallest network of every family in `pytorchcv`, random weights, the smallest",
        "input that it takes; and EfficientNet-Lite0 with its ImageNet weights. Each is loaded from torch, compared",
        "with the torch module, compressed without data to half its parameters (Kronecker) where that is possible,",
        "exported, and both files are compared with the factorized graph on random, extreme and empty images. A pass",
        f"is a largest error of an output of at most {tolerance:g} of its largest value, in every comparison. Some",
        "random networks amplify rounding beyond that, most of them on the extreme images (zeros, one pixel, a hundred",
        f"times too large): there a pass is at most {roundings} times what float32 does to the module itself, in",
        "brackets (its distance from float64, what the last bit of each weight changes, or torch's own ONNX file).",
        "Made by `python -m benchmarks.sweep`.",
        "",
    ]
    for target, title in TARGETS.items():
        counts = summary[target]["statuses"]
        rest = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if status != "pass")
        lines.append(
            f"- {title}: {100 * summary[target]['share']:.1f} % pass ({counts.get('pass', 0)} of {len(rows)}, "
            f"{summary[target]['by_rounding']} of them by the measure of their own rounding"
            + (f"; {rest})" if rest else ")")
        )
    for target, title in TARGETS.items():
        if summary[target]["blockers"]:
            lines += ["", f"## What stops the others on their way to {title}", ""]
            lines += tables.head(["reason", "families it alone stops", "families"])
            for entry in summary[target]["blockers"]:
                cells = [_cell(entry["reason"]), str(entry["unlocks"]), ", ".join(entry["blocks"])]
                lines.append(tables.row(cells))
    lines += ["", "## Every family", ""]
    lines += tables.head(["family", "network", "input", "MACs", "parameters", "fewer", "ONNX error", "TFLite error"])
    lines += [_row(row) for row in rows]
    lines += ["", "## Left out", ""]
    lines += [f"- {family}: {reason}" for family, reason in sorted(result["skipped"].items())]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    ratio = "dense" if "nothing_to_compress" in row else f"{row['ratio']:.2f}x" if "ratio" in row else ""
    cells = [
        row["family"],
        row.get("network", ""),
        "x".join(map(str, row.get("input", []))),
        f"{row['macs'] / 1e6:,.1f} M" if "macs" in row else "",
        f"{row['parameters'] / 1e6:,.2f} M" if "parameters" in row else "",
        ratio,
        *(_outcome(row[target]) for target in TARGETS),
    ]
    return tables.row(cells)


def _outcome(outcome: Row) -> str:
    if outcome["status"] == "pass":
        return f"{outcome['relative']:.1e}" + (f" ({outcome['rounding']:.1e})" if "rounding" in outcome else "")
    return f"{outcome['status']}: {_cell('; '.join(sorted(reasons(outcome)))[:160])}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
