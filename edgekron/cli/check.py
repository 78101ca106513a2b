"""``edgekron check``: whether model files keep their budget on a device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.files import refuse_existing, write_file

from .shared.model_files import write_json
from .shared.output import print_table, progress_bars, say

if TYPE_CHECKING:
    import argparse

    from edgekron.runtimes.check import Baseline, Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The budget, the device, and the files to write."""
    parser.add_argument("budget", metavar="BUDGET.toml", help="limits by model and device")
    parser.add_argument("--on", metavar="DEVICE", help="where to measure (default: the budget's device, else local)")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this model; may be repeated")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="compare with this file, not the budget's")
    parser.add_argument(
        "--write-baseline", action="store_true", help="measure what the next checks on this machine compare with"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything; its schema: docs/check.schema.json")
    parser.add_argument("--junit", type=Path, metavar="OUT", help="write JUnit XML for a CI server")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write Markdown for a pull request")
    parser.add_argument("--force", action="store_true", help="replace what --json, --junit and --markdown name")


def run(arguments: argparse.Namespace) -> int:
    """Checks and prints one row a limit; exit code 0 when all are kept, 1 when one is broken, 3 when unsure."""
    from edgekron.runtimes.check import junit, markdown

    from .shared.checking import run_check

    for path in (arguments.json, arguments.junit, arguments.markdown):
        if path is not None:
            refuse_existing(path, arguments.force)
    with progress_bars() as bars:
        outcome, baseline = run_check(
            arguments.budget,
            on=arguments.on,
            models=arguments.model,
            baseline=arguments.baseline,
            record=arguments.write_baseline,
            progress=bars,
        )
    if arguments.json:
        write_json(arguments.json, outcome.to_json(), arguments.force)
    if arguments.junit:
        write_file(arguments.junit, junit(outcome), arguments.force)
    if arguments.markdown:
        write_file(arguments.markdown, markdown(outcome), arguments.force)
    _show(outcome)
    if arguments.write_baseline and baseline is not None:
        return _write_baseline(outcome, baseline)
    return outcome.exit_code


def _show(outcome: Outcome) -> None:
    rows = [
        [model.name, judgement.limit.title, judgement.limit.shown(), judgement.shown(), judgement.verdict.upper()]
        for model in outcome.models
        for judgement in model.judgements
    ]
    print_table(
        f"{outcome.budget}, {outcome.device}",
        ["<model", "<limit", "allowed", "measured", "<verdict"],
        rows,
        "In brackets: 95 % interval, or the range where a figure hardly varies.",
    )
    for model in outcome.models:
        for judgement in model.judgements:
            if judgement.reason:
                say(f"{model.name}, {judgement.limit.title}: {judgement.reason}")
        for note in model.notes:
            sys.stderr.write(f"note: {model.name}: {note}\n")
    say(f"verdict: {outcome.verdict}")


def _write_baseline(outcome: Outcome, baseline: Baseline) -> int:
    """Adds the machine's figures to the baseline file; 3 and nothing written where one of them cannot be trusted."""
    from edgekron.runtimes.check import Verdict
    from edgekron.runtimes.check.fingerprint import fingerprint, identity

    entries = {model.name: model.entry for model in outcome.models if model.entry is not None}
    missing = [model.name for model in outcome.models if model.entry is None]
    if missing:
        say(f"no baseline written: {missing[0]} could not be measured undisturbed")
        return Verdict.INCONCLUSIVE.exit_code
    machine = identity(outcome.facts)
    write_file(baseline.path, baseline.with_entries(machine, outcome.device, entries).to_text(), force=True)
    say(f"baseline of {', '.join(entries)} on machine {fingerprint(machine)} written to {baseline.path}")
    return 0
