"""``edgekron compress``: a trained model to a folder with its factorized graph, plan, factors and report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared.options import add_data, add_model, calibration, open_source
from .shared.output import count, print_json, print_table, progress_bars, say
from .shared.pruning import add_pruning, pruning_settings
from .shared.tuning import add_tuning, check_tuning, print_tuning, register_fill, run_tuning

if TYPE_CHECKING:
    from edgekron.exporters.tuning import Tuning
    from edgekron.planning.candidates import ErrorBound
    from edgekron.planning.plan import CompressionPlan
    from edgekron.planning.ranks import RankRule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, where to, how much, by what method, on which images."""
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
    from edgekron.compression.compressor import apply_plan, compress
    from edgekron.errors import UserError
    from edgekron.files import refuse_existing
    from edgekron.planning.plan import CompressionPlan
    from edgekron.processes import joined

    refuse_existing(arguments.output, arguments.force, artifact.FILES)
    ratios = {"macs": arguments.ratio, "parameters": arguments.params}
    ratios = {cost: ratio for cost, ratio in ratios.items() if ratio is not None}
    rule = _rule(arguments)
    amounts = bool(ratios) + bool(arguments.plan) + (rule is not None)
    if amounts > 1 or (amounts == 0 and arguments.similarity is None):
        raise UserError(
            "say how much to compress by --ratio and --params, or one of --energy, --error, --evbmf, --similarity, "
            "--plan."
        )
    if arguments.plan and arguments.method:
        raise UserError("the plan names the method of each layer; leave --method out.")
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
        data = calibration(arguments, source.hub.input_shape)
        tunings: list[Tuning] = []
        with progress_bars(shown=processes.first) as progress:

            def revise(plan: CompressionPlan) -> CompressionPlan:
                if not arguments.tune:
                    return plan
                from edgekron.exporters.tuning import subjects_of_plan, tuned_plan

                subjects = subjects_of_plan(source.hub, plan, fitted=bool(data))
                tunings.append(run_tuning(source.hub, subjects, arguments, progress))
                return tuned_plan(plan, tunings[0], subjects)

            if plan is not None:
                result = apply_plan(
                    source.hub, revise(plan), data=data, pruning=pruning, processes=processes, progress=progress
                )
            else:
                result = compress(
                    source.hub,
                    model=source.name,
                    ratios=ratios,
                    data=data,
                    method=arguments.method or "kronecker",
                    rule=rule,
                    fill=register_fill(arguments) if arguments.tune else 1,
                    revise=revise,
                    pruning=pruning,
                    processes=processes,
                    progress=progress,
                )
        for tuning in tunings:
            result.report["tuning"] = tuning.to_json()
        if processes.first:
            artifact.write(result, arguments.output, force=arguments.force)
            _print(arguments, result.report, tunings)
        processes.wait()
    return 0


def _print(arguments: argparse.Namespace, report: dict[str, Any], tunings: Sequence[Tuning]) -> None:
    if arguments.json:
        print_json(report)
        return
    for tuning in tunings:
        print_tuning(tuning)
    print_layers(report)
    say(f"written to {arguments.output}")


def _rule(arguments: argparse.Namespace) -> RankRule | ErrorBound | None:
    """The one rule that is asked for. Raises ``UserError`` for several, or a share that is none."""
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


def print_layers(report: dict[str, Any]) -> None:
    """The report's layers as a table."""
    rows = []
    for name, row in report["layers"].items():
        dense, now = row["dense"], row.get("compressed", row["dense"])
        saved = f"{dense['macs'] / now['macs']:.2f}" if now["macs"] else ""
        detail = row["reason"]
        if "shape" in row:
            kept = f"{row['channels']['outputs'][0]} channels, " if "channels" in row else ""
            detail = f"{kept}{row['shape']}, rank {row['rank']}"
        error = f"{100 * row['error']:.2f}" if "error" in row else ""
        rows.append([name, row["method"], detail, count(now["macs"]), saved, f"{now['parameters']:,}", error])
    totals = report["totals"]
    print_table(
        "Compressed layers",
        ["<layer", "<method", "<structure", "MACs", "x fewer", "parameters", "error %"],
        rows,
        caption=f"{totals['macs']['ratio']:.2f}x fewer MACs, {totals['parameters']['ratio']:.2f}x fewer parameters; "
        f"error: {report['definitions']['error']}",
    )
