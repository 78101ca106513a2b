"""What two versions of a network are judged by, and whether the bounds that a user gave are kept."""

from __future__ import annotations

import argparse

from edgekron.errors import UserError


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """The options with the bounds; of a chain, see ``judge_chain``."""
    parser.add_argument("--tolerance", type=float, metavar="X", help="exit code 1 if a relative error exceeds X")
    parser.add_argument("--sqnr", type=float, metavar="DB", help="exit code 1 if an output's SQNR on DATA is below DB")
    parser.add_argument(
        "--agreement", type=float, metavar="P", help="exit code 1 if less than P %% of DATA gets the same class"
    )


def check_bounds(arguments: argparse.Namespace) -> None:
    """Raises ``UserError`` for bounds that cannot be judged."""
    if (arguments.sqnr is not None or arguments.agreement is not None) and not arguments.data:
        raise UserError("--sqnr and --agreement are judged on real images; give --data.")
