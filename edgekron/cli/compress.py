"""``edgekron compress``: a trained model to a folder with its factorized graph, plan and report."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .shared.options import add_data, add_model, calibration, open_source
from .shared.output import count, print_json, print_table, progress_bars, say
from .shared.pruning import add_pruning, pruning_settings
from .shared.tuning import add_tuning, check_tuning, print_tuning, register_fill, run_tuning

if TYPE_CHECKING:
    from edgekron.compression.report import CompressionReport
    from edgekron.exporters.tuning import Tuning
    from edgekron.graph import Hub
    from edgekron.planning.candidates import ErrorBound
    from edgekron.planning.plan import CompressionPlan
    from edgekron.planning.ranks import RankRule

    from .shared.output import Steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the folder to write, the amount, the method, and the images."""
    add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--method",
        help="kronecker (default), low-rank, channel-svd, tucker, cp, tt, tt-matrix, tr; auto: the best for each "
        "layer; qsfm and others: prune channels",
    )
    amount = parser.add_argument_group("how much (--ratio and --params go together; else one)")
    amount.add_argument("--ratio", type=float, metavar="R", help="R times fewer multiply-accumulates")
    amount.add_argument("--params", type=float, metavar="R", help="R times fewer parameters")
    amount.add_argument("--energy", type=float, metavar="E", help="ranks that keep a share E of the squared spectrum")
    amount.add_argument("--error", type=float, metavar="E", help="closed forms of a relative squared error up to E")
    amount.add_argument("--evbmf", action="store_true", help="ranks by variational Bayesian matrix factorization")
    amount.add_argument("--plan", metavar="FILE", help="apply this plan instead of choosing one")
    add_pruning(parser)
    add_data(parser)
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure which form of each layer is fastest, at ranks that suit the runtimes",
    )
    add_tuning(parser)
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Compresses, writes the folder, and prints what each layer became; processes of ``torchrun`` share the images."""
    from edgekron.compression import artifact
    from edgekron.compression.compressor import CompressionOptions, Draft, apply_plan, draft
    from edgekron.errors import UserError
    from edgekron.files import refuse_existing
    from edgekron.planning.plan import CompressionPlan
    from edgekron.processes import joined

    refuse_existing(arguments.output, arguments.force, artifact.FILES)
    ratios, rule = _amounts(arguments)
    check_tuning(arguments)
    plan = CompressionPlan.read(Path(arguments.plan)) if arguments.plan else None
    pruning = pruning_settings(arguments, plan)
    with joined(gpus=False) as processes:
        if arguments.tune and processes.count > 1:
            raise UserError(
                "--tune measures on a machine that does nothing else; compress first, then run 'edgekron tune' on the "
                "folder, without torchrun."
            )
        source = open_source(arguments.model, arguments)
        data = calibration(arguments, source.hub.inputs)
        with progress_bars(shown=processes.first) as progress:
            if plan is None:
                options = CompressionOptions(rule, register_fill(arguments) if arguments.tune else 1, pruning)
                drafted = draft(
                    source.hub,
                    model=source.name,
                    ratios=ratios,
                    data=data,
                    method=arguments.method or "kronecker",
                    options=options,
                    processes=processes,
                    progress=progress,
                )
            else:
                drafted = Draft(plan)
            plan, tuning = _tuned(arguments, source.hub, drafted.plan, progress, fitted=bool(data))
            result = apply_plan(
                source.hub,
                plan,
                pruned=drafted.pruned,
                data=data,
                pruning=pruning,
                processes=processes,
                progress=progress,
            )
        if tuning is not None:
            result = replace(result, report=replace(result.report, tuning=tuning.to_json()))
        if processes.first:
            artifact.write(result, arguments.output, force=arguments.force)
            _print(arguments, result.report, tuning)
        processes.wait()
    return 0


def _tuned(
    arguments: argparse.Namespace, hub: Hub, plan: CompressionPlan, progress: Steps, *, fitted: bool
) -> tuple[CompressionPlan, Tuning | None]:
    """The plan with the forms that ``--tune`` chooses, and the measurements; without it the plan as it is."""
    from edgekron.exporters.tuning import subjects_of_plan, tuned_plan

    if not arguments.tune:
        return plan, None
    subjects = subjects_of_plan(hub, plan, fitted=fitted)
    tuning = run_tuning(hub, subjects, arguments, progress)
    return tuned_plan(plan, tuning, subjects), tuning


def _print(arguments: argparse.Namespace, report: CompressionReport, tuning: Tuning | None) -> None:
    if arguments.json:
        print_json(report.to_json())
        return
    if tuning is not None:
        print_tuning(tuning)
    print_layers(report)
    say(f"written to {arguments.output}")


def _amounts(arguments: argparse.Namespace) -> tuple[dict[str, float], RankRule | ErrorBound | None]:
    """The ratios and the rule that say how much to compress. Raises ``UserError`` for none, or several."""
    from edgekron.errors import UserError

    given = {"macs": arguments.ratio, "parameters": arguments.params}
    ratios = {unit: ratio for unit, ratio in given.items() if ratio is not None}
    rule = _rule(arguments)
    amounts = bool(ratios) + bool(arguments.plan) + (rule is not None)
    if amounts > 1 or (amounts == 0 and arguments.similarity is None):
        raise UserError(
            "say how much to compress by --ratio and --params, or one of --energy, --error, --evbmf, --similarity, "
            "--plan."
        )
    if arguments.plan and arguments.method:
        raise UserError("the plan names the method of each layer; leave --method out.")
    return ratios, rule


def _rule(arguments: argparse.Namespace) -> RankRule | ErrorBound | None:
    """The rule for ranks that the options ask for. Raises ``UserError`` for several, or a share outside 0 to 1."""
    from edgekron.errors import UserError
    from edgekron.planning.candidates import ErrorBound
    from edgekron.planning.ranks import Energy, Evbmf

    rules: list[RankRule | ErrorBound] = [Evbmf()] if arguments.evbmf else []
    for name, share, kind in (("energy", arguments.energy, Energy), ("error", arguments.error, ErrorBound)):
        if share is not None:
            if not 0 < share < 1:
                raise UserError(f"--{name} {share:g} is a share; give a number between 0 and 1.")
            rules.append(kind(share))
    if len(rules) > 1:
        raise UserError("give only one of --energy, --error and --evbmf.")
    return rules[0] if rules else None


def print_layers(report: CompressionReport) -> None:
    """The report's layers as a table."""
    from edgekron.compression.report import DEFINITIONS
    from edgekron.planning.plan import plain

    rows = []
    for name, row in report.layers.items():
        saved = f"{row.dense.macs / row.now.macs:.2f}" if row.now.macs else ""
        detail = row.reason
        if row.shape:
            kept = f"{row.channels.outputs[0]} channels, " if row.channels else ""
            detail = f"{kept}{row.shape}, rank {plain(row.rank)}"
        error = "" if row.error is None else f"{100 * row.error:.2f}"
        macs = "?" if name in report.uncounted else count(row.now.macs)
        rows.append([name, row.method, detail, macs, saved, f"{row.now.parameters:,}", error])
    fewer = f"{report.macs.ratio:.2f}x fewer MACs"
    if report.uncounted:
        fewer = f"MACs not known, as those of {', '.join(report.uncounted)} are not"
    print_table(
        "Compressed layers",
        ["<layer", "<method", "<structure", "MACs", "x fewer", "parameters", "error %"],
        rows,
        caption=f"{fewer}, {report.parameters.ratio:.2f}x fewer parameters; error: {DEFINITIONS['error']}",
    )
