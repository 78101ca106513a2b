"""The sweep's report: what passes, what is refused and why, and which missing operator would unlock most families."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

TARGETS = {"onnx": "ONNX", "tflite": "TFLite"}


def write_report(
    rows: dict[str, dict[str, Any]], skipped: dict[str, str], tolerances: tuple[float, int], record: Path, docs: Path
) -> None:
    """Writes ``record`` (JSON) and sweep.md in ``docs``."""
    families = sorted(rows.values(), key=lambda row: row["family"])
    summary = {target: _summary(families, target) for target in TARGETS}
    record.write_text(
        json.dumps(
            {
                "tolerance": tolerances[0],
                "roundings": tolerances[1],
                "summary": summary,
                "skipped": skipped,
                "families": families,
            },
            indent=1,
        )
        + "\n"
    )
    docs.mkdir(exist_ok=True)
    (docs / "sweep.md").write_text(_markdown(families, summary, skipped, *tolerances))


def reasons(outcome: dict[str, Any]) -> set[str]:
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


def _summary(rows: list[dict[str, Any]], target: str) -> dict[str, Any]:
    statuses = Counter(row[target]["status"] for row in rows)
    blockers: dict[str, list[tuple[str, bool]]] = {}
    for row in rows:
        if row[target]["status"] == "pass":
            continue
        why = reasons(row[target])
        for reason in why:
            blockers.setdefault(reason, []).append((row["family"], len(why) == 1))
    listed = [
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


def _by_rounding(row: dict[str, Any], target: str) -> bool:
    """Whether a network passed only by what float32 does to it."""
    return row[target]["status"] == "pass" and any("rounding" in row[stage] for stage in ("import", target))


def _markdown(
    rows: list[dict[str, Any]], summary: dict[str, Any], skipped: dict[str, str], tolerance: float, roundings: int
) -> str:
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
        "Made by `python benchmarks/sweep.py`.",
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
            lines += ["| reason | families it alone stops | families |", "|---|---|---|"]
            lines += [
                f"| {_cell(entry['reason'])} | {entry['unlocks']} | {', '.join(entry['blocks'])} |"
                for entry in summary[target]["blockers"]
            ]
    lines += ["", "## Every family", ""]
    lines += ["| family | network | input | MACs | parameters | fewer | ONNX error | TFLite error |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_row(row) for row in rows]
    lines += ["", "## Left out", ""]
    lines += [f"- {family}: {reason}" for family, reason in sorted(skipped.items())]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
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
    return f"| {' | '.join(cells)} |"


def _outcome(outcome: dict[str, Any]) -> str:
    if outcome["status"] == "pass":
        return f"{outcome['relative']:.1e}" + (f" ({outcome['rounding']:.1e})" if "rounding" in outcome else "")
    return f"{outcome['status']}: {_cell('; '.join(sorted(reasons(outcome)))[:160])}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
