"""``edgekron tune``: the fastest form of every layer of a compressed folder, by measurement on this machine."""

from __future__ import annotations

import argparse

from .shared.options import add_factory, open_source
from .shared.output import print_json, progress_bars, say
from .shared.tuning import add_tuning, print_tuning, run_tuning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, the folder to write, and the runtimes to tune for."""
    parser.add_argument("folder", metavar="DIR", help="a folder written by compress")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write (default: the same one, with --force)")
    parser.add_argument(
        "--original",
        metavar="MODEL",
        help="the network before it was compressed, for the kernels of layers that stay dense (default: the one that "
        "the plan names, if it is a bundled one; without it they keep the product of their factors)",
    )
    add_tuning(parser)
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")
    add_factory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measures, writes the folder, and prints the candidates and the choices."""
    from edgekron import models
    from edgekron.compression import artifact
    from edgekron.errors import UserError
    from edgekron.exporters.tuning import subjects_of_hub, tuned_compression
    from edgekron.files import refuse_existing
    from edgekron.pruning import kept_channels

    output = arguments.output or arguments.folder
    old = artifact.read(arguments.folder)
    hub, plan = old.hub, old.plan
    refuse_existing(output, arguments.force, artifact.FILES)
    # If channels were pruned, or weights trained, the network before has no kernels for this one.
    changed = "has fewer channels than" if kept_channels(hub.model) else ""
    changed = changed or ("was trained since it was made of" if old.report.training else "")
    if changed and arguments.original:
        raise UserError(f"{arguments.folder} {changed} {arguments.original}; leave --original out.")
    name = arguments.original or (plan.model if plan.model in models.NETWORKS and not changed else None)
    original = open_source(name, arguments).hub if name else None
    if original is not None and [x.name for x in original.layers()] != [x.name for x in hub.layers()]:
        raise UserError(f"{name} has other layers than {arguments.folder}; name the model that was compressed.")
    subjects = subjects_of_hub(hub)
    with progress_bars() as progress:
        tuning = run_tuning(original or hub.dense(), subjects, arguments, progress)
    result = tuned_compression(old, tuning, subjects, original)
    artifact.write(result, output, force=arguments.force)
    if arguments.json:
        print_json(result.report.to_json())
    else:
        print_tuning(tuning)
        say(f"written to {output}")
    return 0
