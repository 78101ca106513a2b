"""What ``compress --tune`` and ``tune`` share: their options, the measuring, and the table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import print_table, say

if TYPE_CHECKING:
    from edgekron.exporters.tuning import Subject, Tuning
    from edgekron.exporters.tuning.results import Result
    from edgekron.graph import Hub

    from .output import Steps

#: Ways shown for each layer; the report has all.
_SHOWN = 4
_BOTH = "onnx,litert"


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """For which runtimes, with how many threads, and whether to believe earlier measurements."""
    parser.add_argument("--runtime", metavar="LIST", help="runtimes to tune for: onnx, litert (default: both)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to measure with (default: 1)")
    parser.add_argument("--no-cache", action="store_true", help="measure again what was measured before")


def check_tuning(arguments: argparse.Namespace) -> None:
    """Raises ``UserError`` for options of tuning where there is none, and for wrong ones, before any work is done."""
    from edgekron.errors import UserError
    from edgekron.exporters.tuning import targets_of

    given = [
        option
        for option, value in (("--runtime", arguments.runtime), ("--threads", arguments.threads))
        if value is not None
    ] + ["--no-cache"] * arguments.no_cache
    if given and not arguments.tune:
        raise UserError(f"{given[0]} says how to tune; give --tune with it.")
    if arguments.tune:
        targets_of(_BOTH if arguments.runtime is None else arguments.runtime)
        if arguments.threads is not None and arguments.threads < 1:
            raise UserError(f"--threads {arguments.threads} must be at least 1.")


def register_fill(arguments: argparse.Namespace) -> int:
    """Output channels that the runtimes compute at a time; ranks are chosen to fill them."""
    from edgekron.exporters.tuning import FILL, targets_of

    return max(FILL[target] for target in targets_of(_BOTH if arguments.runtime is None else arguments.runtime))


def run_tuning(hub: Hub, subjects: Sequence[Subject], arguments: argparse.Namespace, progress: Steps) -> Tuning:
    """Tunes the layers of the dense ``hub`` as the options say. Raises ``UserError``."""
    from edgekron.exporters.tuning import checked, targets_of, tune

    threads = 1 if arguments.threads is None else arguments.threads
    targets = targets_of(_BOTH if arguments.runtime is None else arguments.runtime)
    tuning = tune(subjects, targets, threads=threads, use_cache=not arguments.no_cache, progress=progress)
    return checked(tuning, hub, subjects, threads=threads, use_cache=not arguments.no_cache, progress=progress)


def print_tuning(tuning: Tuning) -> None:
    """One row for each layer and runtime, and how the whole network fares."""
    for target, facts in tuning.machine.items():
        rows = []
        for name, results in tuning.results.items():
            trial = tuning.choices[name].trials[target]
            dense = f"{1e3 * results[target].dense_seconds:.3f}"
            if trial is None:
                rows.append([name, dense, _tried(results[target]), "dense", ""])
                continue
            ratio = trial.ratio
            order = ",".join(map(str, trial.candidate.order))
            gain = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
            rows.append([name, dense, _tried(results[target]), f"{trial.candidate} ({order})", gain])
        plural = "" if facts["threads"] == 1 else "s"
        print_table(
            f"Tuned for {facts['runtime']} {facts['version']}, {facts['type']}, {facts['threads']} thread{plural}, "
            f"{facts['processor']}",
            ["<layer", "dense ms", "<times as fast, by form", "<choice (order)", "times as fast as dense"],
            rows,
            "In brackets: 95 % interval of the final. A layer whose interval does not lie above 1 stays dense.",
        )
        whole = tuning.network[target]
        found = "; ".join(
            f"{name} {one['ratio']:.2f} [{one['interval'][0]:.2f}, {one['interval'][1]:.2f}]"
            for name, one in whole["variants"].items()
        )
        say(
            f"whole network, dense in {whole['dense_ms']:.3g} ms; times as fast: {found or 'nothing to gain'}; "
            f"chosen: {whole['chosen']}"
        )
    say(f"{tuning.measured} measured now, the others before")


def _tried(result: Result) -> str:
    ranked = sorted(result.trials, key=lambda trial: -trial.ratio.value)
    shown = [f"{trial.candidate} {trial.ratio.value:.2f}" for trial in ranked[:_SHOWN]]
    more = len(ranked) - len(shown)
    return ", ".join(shown) + (f" and {more} slower" if more > 0 else "")
