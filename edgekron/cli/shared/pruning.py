"""The options of ``compress`` that say how channels are pruned."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    from edgekron.planning.plan import CompressionPlan
    from edgekron.pruning import PruningSettings


def add_pruning(parser: argparse.ArgumentParser) -> None:
    """By which threshold, to which widths, and whether later layers are repaired."""
    group = parser.add_argument_group(
        "pruning (--method qsfm-ssim, qsfm-psnr, absorb, l1, bn-scale or random; with a structure: qsfm+low-rank)"
    )
    group.add_argument(
        "--similarity",
        type=float,
        metavar="S",
        help="instead of a ratio: remove channels whose maps are like another's by at least S (SSIM up to 1, PSNR in "
        "dB, for absorb the share of the network's output that stays)",
    )
    group.add_argument("--any-width", action="store_true", help="do not raise channels to numbers that run well")
    group.add_argument("--no-repair", action="store_true", help="do not have later layers take over what was removed")


def pruning_settings(arguments: argparse.Namespace, plan: CompressionPlan | None) -> PruningSettings | None:
    """The settings that the options ask for; None if nothing is pruned.

    Raises ``UserError`` for options of pruning if nothing is pruned, and for --tune if something is.
    """
    from edgekron.compression.compressor import split_method
    from edgekron.pruning import PruningSettings

    if plan is None:
        criterion, _ = split_method(arguments.method or "kronecker")
        prunes = criterion is not None
    else:
        prunes = any(line.channels for line in plan.layers.values())
    given = [("--similarity", arguments.similarity is not None), ("--any-width", arguments.any_width)]
    if plan is None:
        given.append(("--no-repair", arguments.no_repair))
    for option, present in given:
        if present and (plan is not None or not prunes):
            remedy = "the plan says how many channels stay" if plan is not None else "give --method qsfm, or another"
            raise UserError(f"{option} says how to prune; {remedy}.")
    if not prunes:
        if arguments.no_repair:
            raise UserError("--no-repair says how to prune; the plan prunes nothing.")
        return None
    if arguments.tune:
        raise UserError(
            "--tune measures the layers of the network as it is, before channels go; compress it first, then run "
            "'edgekron tune' on the folder."
        )
    return PruningSettings(arguments.similarity, any_width=arguments.any_width, repair=not arguments.no_repair)
