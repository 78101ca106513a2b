"""The options, the measuring and the table of tuning, which ``compress --tune`` and ``tune`` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import print_table, say

if TYPE_CHECKING:
    from edgekron.exporters.tuning import Subject, Tuning
    from edgekron.exporters.tuning.results import Result
    from edgekron.graph import Hub
    from edgekron.processes import Progress
    from edgekron.runtimes.statistics import Interval

#: Candidates shown for each layer; the report has all.
_SHOWN = 4
_BOTH = "onnx,litert"


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """The runtimes to tune for, the number of threads, and whether earlier measurements count."""
    parser.add_argument("--runtime", metavar="LIST", help="runtimes to tune for: onnx, litert (default: both)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to measure with (default: 1)")
    parser.add_argument("--no-cache", action="store_true", help="measure again what was measured before")


def check_tuning(arguments: argparse.Namespace) -> None:
    """Raises ``UserError`` for options of tuning without ``--tune``, and for wrong ones, before any work is done."""
    from edgekron.errors import UserError

    given = [
        option
        for option, value in (("--runtime", arguments.runtime), ("--threads", arguments.threads))
        if value is not None
    ] + ["--no-cache"] * arguments.no_cache
    if given and not arguments.tune:
        raise UserError(f"{given[0]} says how to tune; give --tune with it.")
    if arguments.tune:
        _targets(arguments)
        if arguments.threads is not None and arguments.threads < 1:
            raise UserError(f"--threads {arguments.threads} must be at least 1.")


def register_fill(arguments: argparse.Namespace) -> int:
    """Output channels that the runtimes compute at a time; ranks are chosen to fill them."""
    from edgekron.exporters.tuning import FILL

    return max(FILL[target] for target in _targets(arguments))


def run_tuning(hub: Hub, subjects: Sequence[Subject], arguments: argparse.Namespace, progress: Progress) -> Tuning:
    """Tunes ``subjects``, layers of the dense ``hub``, by the options of ``add_tuning``. Raises ``UserError``."""
    from edgekron.exporters.tuning import checked, tune

    threads = 1 if arguments.threads is None else arguments.threads
    tuning = tune(subjects, _targets(arguments), threads=threads, use_cache=not arguments.no_cache, progress=progress)
    return checked(tuning, hub, subjects, threads=threads, use_cache=not arguments.no_cache, progress=progress)


def _targets(arguments: argparse.Namespace) -> list[str]:
    """The formats to tune for. Raises ``UserError``."""
    from edgekron.exporters.tuning import targets_of

    return targets_of(_BOTH if arguments.runtime is None else arguments.runtime)


def print_tuning(tuning: Tuning) -> None:
    """One row for each layer and runtime, and the result of the whole network on each runtime."""
    for target, conditions in tuning.conditions.items():
        rows = []
        for name, results in tuning.results.items():
            trial = tuning.choices[name].trials[target]
            dense = f"{1e3 * results[target].dense_seconds:.3f}"
            if trial is None:
                rows.append([name, dense, _tried(results[target]), "dense", ""])
                continue
            order = ",".join(map(str, trial.candidate.order))
            choice = f"{trial.candidate} ({order})"
            rows.append([name, dense, _tried(results[target]), choice, _interval(trial.ratio)])
        plural = "" if conditions.threads == 1 else "s"
        print_table(
            f"Tuned for {conditions.runtime} {conditions.version}, {conditions.type}, {conditions.threads} "
            f"thread{plural}, {conditions.processor}",
            ["<layer", "dense ms", "<times as fast, by form", "<choice (order)", "times as fast as dense"],
            rows,
            "In brackets: 95 % interval of the final. A layer whose interval does not lie above 1 stays dense.",
        )
        whole = tuning.network[target]
        found = "; ".join(f"{name} {_interval(ratio)}" for name, ratio in whole.ratios.items())
        say(
            f"whole network, dense in {1e3 * whole.seconds:.3g} ms; times as fast: {found or 'nothing to gain'}; "
            f"chosen: {whole.fastest or 'dense'}"
        )
    say(f"{tuning.measured} measured now, the others before")


def _interval(ratio: Interval) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _tried(result: Result) -> str:
    ranked = sorted(result.trials, key=lambda trial: -trial.ratio.value)
    shown = [f"{trial.candidate} {trial.ratio.value:.2f}" for trial in ranked[:_SHOWN]]
    more = len(ranked) - len(shown)
    return ", ".join(shown) + (f" and {more} slower" if more > 0 else "")
