"""A chain of proof as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.exporters.verify import Difference, Part, Step, VersionChain


def show_chain(chain: VersionChain) -> None:
    """Prints the table of steps, and the table of layers by steps; of a pair every comparison of its one step too."""
    _print_steps(chain)
    if chain.pair:
        outputs = chain.steps[0].outputs
        _print_differences("Outputs", [(row.case if row.part is None else f"  {row.name}", row) for row in outputs])
    else:
        _print_parts(chain)
    _print_layers(chain)
    if chain.pair and chain.steps[0].within:
        known = [(row.name, row) for row in chain.steps[0].within]
        _print_differences("Values that both know by name, each on the input where it differs most", known)


def _print_differences(title: str, rows: Sequence[tuple[str, Difference]]) -> None:
    print_table(
        title,
        ["<value", "max abs", "relative", "SQNR dB", "cosine"],
        [[name, f"{d.max_abs:.2e}", f"{d.relative:.2e}", f"{d.sqnr_db:.1f}", f"{d.cosine:.7f}"] for name, d in rows],
    )


def _print_steps(chain: VersionChain) -> None:
    rows = []
    for step in chain.steps:
        worst = step.worst
        rows.append(
            [
                step.title,
                step.against,
                step.link.kind,
                f"{max(row.relative for row in step.outputs):.1e}",
                *_on_main_case(step.real, chain),
                *([] if chain.pair else _on_main_case(step.since, chain)),
                "" if worst is None else f"{worst.name} ({worst.entered:.1e})",
            ]
        )
    measures, in_all = ["SQNR dB"], ["in all dB"]
    if chain.images:
        measures, in_all = [*measures, "same class %"], [*in_all, "in all %"]
    if chain.pair:
        in_all = []
    print_table(
        "Steps",
        ["<version", "<compared with", "<what changed", "largest", *measures, *in_all, "<enters most at"],
        rows,
        caption="largest: the largest error of an output over its largest value, on every input (int8: on the images "
        f"alone); SQNR of the outputs{' and same class' if chain.images else ''}: on {chain.case}"
        + ("" if chain.pair else f"; in all: against {chain.versions[0].title}"),
    )


def _print_parts(chain: VersionChain) -> None:
    """The parts of joined outputs by steps."""
    columns = [{row.name: row for row in step.real if row.part is not None} for step in chain.steps]
    names = list(dict.fromkeys(name for column in columns for name in column))
    if names:
        print_table(
            f"Parts of outputs, on {chain.case}: SQNR in dB",
            ["<part", *(step.title for step in chain.steps)],
            [
                [name, *(f"{column[name].sqnr_db:.1f}" if name in column else "-" for column in columns)]
                for name in names
            ],
        )


def _on_main_case(rows: Sequence[Difference], chain: VersionChain) -> list[str]:
    agreements = [row.agreement for row in rows if row.agreement is not None]
    same = [f"{100 * min(agreements):.2f}" if agreements else ""] if chain.images else []
    return [f"{min(row.sqnr_db for row in rows):.1f}", *same]


def _print_layers(chain: VersionChain) -> None:
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


def _cell(part: Part | None) -> str:
    if part is None:
        return "-"
    return f"{_short(part.entered)} ({_short(part.accumulated)})"


def _short(error: float | None) -> str:
    return "?" if error is None else f"{error:.1e}" if error else "0"


def _between(step: Step) -> str:
    entered = [part.entered for part in step.parts if part.layer is None and part.entered is not None]
    return _short(max(entered)) if entered else ""
