"""A chain of proof as tables, as notes and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .output import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.exporters.verify import Chain, Step


def show_chain(chain: Chain) -> None:
    """Prints the table of steps, and the table of layers by steps."""
    _print_steps(chain)
    _print_layers(chain)


def _print_steps(chain: Chain) -> None:
    rows = []
    for step in chain.steps:
        worst = step.worst
        rows.append(
            [
                step.title,
                step.against,
                step.link.kind,
                f"{max(row.relative for row in step.outputs):.1e}",
                *_on_case(step.real, chain),
                *_on_case(step.since, chain),
                "" if worst is None else f"{worst.name} ({worst.entered:.1e})",
            ]
        )
    same = [["same class %"], ["in all %"]] if chain.images else [[], []]
    print_table(
        "Steps",
        ["<version", "<compared with", "<what changed", "largest", "SQNR dB", *same[0], "in all dB", *same[1],
         "<enters most at"],
        rows,
        caption="largest: the largest error of an output over its largest value, on every input (smaller types: on the "
        f"images alone); SQNR of the outputs{' and same class' if chain.images else ''}: on {chain.case}; in all: "
        f"against {chain.versions[0].title}",
    )  # fmt: skip


def _on_case(rows: Sequence[Any], chain: Chain) -> list[str]:
    agreements = [row.agreement for row in rows if row.agreement is not None]
    same = [f"{100 * min(agreements):.2f}" if agreements else ""] if chain.images else []
    return [f"{min(row.sqnr_db for row in rows):.1f}", *same]


def _print_layers(chain: Chain) -> None:
    columns = [{part.layer: part for part in step.parts if part.layer} for step in chain.steps]
    rows = [
        [name, *(_cell(column.get(name)) for column in columns)]
        for name in chain.layers
        if any(name in column for column in columns)
    ]
    if not rows:
        return
    between = [_between(step) for step in chain.steps]
    if any(between):
        rows.append(["between layers, at most", *between])
    print_table(
        f"Layers, on {chain.case}: the error that enters at the layer (and what has accumulated up to it)",
        ["<layer", *(step.title for step in chain.steps)],
        rows,
        caption="relative, in the mean square. Enters: the layer's output against what the layer of the version before "
        "makes of the same input. Accumulated: against the output in the version before.",
    )


def _cell(part: Any) -> str:
    if part is None:
        return "-"
    return f"{_short(part.entered)} ({_short(part.accumulated)})"


def _short(error: float | None) -> str:
    return "?" if error is None else f"{error:.1e}" if error else "0"


def _between(step: Step) -> str:
    entered = [part.entered for part in step.parts if part.layer is None and part.entered is not None]
    return _short(max(entered)) if entered else ""


def notes(chain: Chain) -> list[str]:
    """What a reader should know of the chain itself."""
    from edgekron.exporters.verify import DECOMPOSITION, QUANTIZATION

    said = [
        f"{step.title} shares no values with {step.against} by name; only their outputs were compared."
        for step in chain.steps
        if not step.parts and chain.layers
    ]
    if not chain.layers:
        said.append("no layer is known, so that outputs alone were compared; give the model or the folder too.")
    said += [
        f"{step.title} differs from {step.against} by {step.link.kind}, and its error cannot be told apart; give the "
        "versions between them too."
        for step in chain.steps
        if len(step.link.kinds) > 1
    ]
    if not chain.images and any({DECOMPOSITION, QUANTIZATION} & set(step.link.kinds) for step in chain.steps):
        said.append("on random input; decomposition and quantization are judged on real images: give --data.")
    return said


def chain_json(chain: Chain) -> dict[str, Any]:
    """Plain data; an infinite or unknown number is None."""
    return {
        "versions": [
            {
                "title": entry.title,
                "kind": entry.version.kind,
                "precision": entry.version.precision,
                "identity": None if entry.version.identity is None else entry.version.identity.digest,
            }
            for entry in chain.versions
        ],
        "case": chain.case,
        "steps": [_step_json(step) for step in chain.steps],
    }


def _step_json(step: Step) -> dict[str, Any]:
    def plain(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}

    return {
        "version": step.title,
        "against": step.against,
        "kinds": list(step.link.kinds),
        "judge": step.judge,
        "outputs": [row.to_json() for row in step.outputs],
        "since_reference": [row.to_json() for row in step.since],
        "worst": None if step.worst is None else plain(asdict(step.worst)),
        "parts": [plain(asdict(part)) for part in step.parts],
    }
