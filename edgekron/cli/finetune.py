"""``edgekron finetune``: trains a compressed folder, by labels, by a teacher, or by both, to a folder of the same kind.

With ``--method edp`` the command begins with a network that is not compressed, and learns its ranks and channels. A
training can be killed at any time: its state is in OUT.training, and the same command takes it up again.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .shared.options import add_data, add_factory, image_set, open_source
from .shared.output import Steps, print_json, progress_bars, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.compression.compressor import Compression
    from edgekron.graph import NetworkInput
    from edgekron.processes import Processes
    from edgekron.training import Examples, Finetuned, SessionListener, TrainingPosition, TrainingRequest

_AUGMENTATIONS = ("crop", "flip", "erase")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, the images, the teacher, and how long."""
    parser.add_argument(
        "folder", metavar="DIR", help="a folder written by compress or finetune; with --method edp, any MODEL"
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder to write")
    parser.add_argument("--epochs", type=int, required=True, metavar="N", help="passes through the images; 0: none")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    add_data(parser, images=None, use="training")
    taught = parser.add_argument_group("a teacher, usually the network before compression")
    taught.add_argument("--teacher", metavar="MODEL", help="train against its outputs and its layers' responses, too")
    taught.add_argument("--transfer", default="default", help="weights of the loss: default, or lrdkt as published")
    taught.add_argument("--hints", metavar="LAYERS", help="layers to align, with commas between; none: outputs alone")
    taught.add_argument(
        "--correct", action="store_true", help="first give layers its means and deviations, without labels"
    )
    taught.add_argument("--reconstruct", type=int, metavar="N", help="N steps a block without labels, before training")
    taught.add_argument("--rounds", type=int, default=1, metavar="N", help="compress the teacher in N rounds, training "
                        "in each, to reach the plan gradually (1: DIR as it is)")  # fmt: skip
    add_factory(parser)
    learnt = parser.add_argument_group("edp: low rank and sparse channels, learnt while the network is trained")
    learnt.add_argument("--method", choices=("edp",), help="begin with a MODEL that is not compressed")
    learnt.add_argument("--ratio", type=float, metavar="R", help="R times fewer MACs")
    learnt.add_argument("--params", type=float, metavar="R", help="R times fewer parameters")
    learnt.add_argument("--any-width", action="store_true", help="leave channels and ranks as they come")
    how = parser.add_argument_group("how")
    how.add_argument("--batch", type=int, default=128, metavar="N", help="images of a step, over all processes (128)")
    how.add_argument("--lr", type=float, default=0.02, metavar="R", help="highest learning rate (0.02)")
    how.add_argument("--weight-decay", type=float, default=1e-4, metavar="W", help="(0.0001)")
    how.add_argument("--clip", type=float, default=1.0, metavar="G", help="cut gradients to this norm (1; 0: not)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="for order, augmentation and held-out images (0)")
    how.add_argument("--augment", default="crop,flip", metavar="HOW", help="some of crop,flip,erase; none (crop,flip)")
    how.add_argument("--variants", type=int, metavar="N", help="see each image in N versions, for a teacher to look at "
                     "each once (8 with a teacher; 0: always another)")  # fmt: skip
    how.add_argument("--held-out", type=float, default=0.05, metavar="S", help="share of the images to judge by (0.05)")
    how.add_argument("--patience", type=int, default=0, metavar="N", help="stop after N epochs that are no better")
    how.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"), help="of layers (auto)")
    how.add_argument("--plain", action="store_true", help="train without normalisations between the layers")


def run(arguments: argparse.Namespace) -> int:
    """Trains and writes the folder; the processes of ``torchrun`` share the work."""
    from edgekron.compression import artifact
    from edgekron.errors import UserError
    from edgekron.files import refuse_existing
    from edgekron.training import joined

    _check_method(arguments)
    _check(arguments)
    refuse_existing(arguments.output, arguments.force, artifact.FILES)
    if arguments.data is None:
        raise UserError("training needs images; give --data.")
    with joined() as processes, progress_bars() as bars:
        return _run(arguments, processes, bars)


def _check(arguments: argparse.Namespace) -> None:
    from edgekron.errors import UserError
    from edgekron.training import PRESETS

    if arguments.teacher is None and (
        given := [n for n in ("hints", "correct", "reconstruct") if getattr(arguments, n)]
    ):
        raise UserError(f"--{given[0]} needs a teacher; give --teacher.")
    if arguments.transfer not in PRESETS:
        raise UserError(f"there is no transfer {arguments.transfer!r}; there are {', '.join(PRESETS)}.")
    unlabelled = arguments.correct or arguments.reconstruct
    if arguments.epochs < 1 and not unlabelled:
        raise UserError("--epochs 0 trains nothing; give at least 1, or --correct or --reconstruct.")
    if arguments.reconstruct is not None and arguments.reconstruct < 1:
        raise UserError(f"--reconstruct {arguments.reconstruct} does nothing; give at least 1 step.")
    if not 0 < arguments.held_out < 1:
        raise UserError(f"--held-out {arguments.held_out:g} is a share; give a number between 0 and 1.")
    words = set(arguments.augment.split(",")) - {"none"}
    if arguments.rounds < 1 or (arguments.rounds > 1 and arguments.teacher is None):
        raise UserError("--rounds compresses the teacher again and again; give at least 1, and --teacher.")
    if arguments.rounds > 1 and (unlabelled or not arguments.epochs):
        raise UserError("--rounds begins with the teacher; give --epochs, and leave --correct and --reconstruct out.")
    if unknown := sorted(words - set(_AUGMENTATIONS)):
        raise UserError(f"there is no augmentation {unknown[0]!r}; there are {', '.join(_AUGMENTATIONS)}, or none.")


def _check_method(arguments: argparse.Namespace) -> None:
    from edgekron.errors import UserError

    ratios = [ratio for ratio in (arguments.ratio, arguments.params) if ratio is not None]
    if arguments.method is None:
        if ratios or arguments.any_width:
            raise UserError("--ratio, --params and --any-width say what edp is to learn; give --method edp.")
        return
    if not ratios or min(ratios) <= 1 or not all(map(math.isfinite, ratios)):
        raise UserError("edp needs to know how small the network is to become; give --ratio or --params above 1.")
    if arguments.epochs < 1:
        raise UserError("--epochs 0 trains nothing, and edp is training; give at least 1.")
    if arguments.rounds > 1 or arguments.correct or arguments.reconstruct or arguments.patience:
        raise UserError("edp is one stage of training; leave --rounds, --correct, --reconstruct and --patience out.")


def _run(arguments: argparse.Namespace, processes: Processes, bars: Steps) -> int:
    from edgekron.compression import artifact
    from edgekron.training import Training

    compression = _compression(arguments)
    examples = _examples(arguments, compression.hub.inputs)
    teacher = open_source(arguments.teacher, arguments).hub if arguments.teacher else None
    request, state = _request(arguments), Path(f"{arguments.output}.training")
    training = Training(
        request,
        compression,
        examples,
        teacher,
        state,
        processes=processes,
        progress=bars,
        listener=_listener(arguments, processes, bars),
    )
    made = training.run()
    log = training.log() if processes.first and request.epochs else None
    if processes.first:
        facts = made.facts(request, examples)
        result = artifact.with_hub(made.compression, made.compression.hub, facts)
        artifact.write(result, arguments.output, training=log, force=arguments.force)
        shutil.rmtree(state, ignore_errors=True)
        if arguments.json:
            print_json(facts)
        else:
            _print(made, arguments.output)
    processes.wait()
    return 0


def _compression(arguments: argparse.Namespace) -> Compression:
    """The compressed network of the folder; with a method, the network itself, of which nothing is compressed yet."""
    import torch

    from edgekron.compression import artifact
    from edgekron.compression.compressor import Compression
    from edgekron.compression.report import CompressionReport
    from edgekron.planning.plan import CompressionPlan

    if not arguments.method:
        return artifact.read_compressed(arguments.folder)
    # A factory may draw its weights: the same ones when training is taken up again, and in every process.
    torch.manual_seed(arguments.seed)
    source = open_source(arguments.folder, arguments)
    return Compression(source.hub, CompressionPlan(source.name, {}), CompressionReport({}, 0))


def _examples(arguments: argparse.Namespace, inputs: Sequence[NetworkInput]) -> Examples:
    """The images of ``--data``, made to fit the input. Raises ``UserError`` where nothing could teach them."""
    import numpy as np

    from edgekron.errors import UserError
    from edgekron.training import Examples

    images = image_set(arguments, inputs)
    examples = Examples(
        arguments.data, lambda rows: images.normalise(images.images[rows]), images.labels, np.arange(len(images))
    )
    if not examples.labelled and arguments.teacher is None:
        raise UserError(f"{arguments.data} has no labels; give images with labels, or a --teacher.")
    return examples


def _request(arguments: argparse.Namespace) -> TrainingRequest:
    from edgekron.training import TrainingRequest

    hints = None if arguments.hints is None else tuple(n for n in arguments.hints.split(",") if n != "none")
    ratios = {"macs": arguments.ratio, "parameters": arguments.params}
    return TrainingRequest(
        source=arguments.folder,
        epochs=arguments.epochs,
        teacher=arguments.teacher,
        transfer=arguments.transfer,
        hints=hints,
        correct=arguments.correct,
        reconstruct=arguments.reconstruct,
        rounds=arguments.rounds,
        ratios={unit: ratio for unit, ratio in ratios.items() if ratio},
        any_width=arguments.any_width,
        batch=arguments.batch,
        learning_rate=arguments.lr,
        weight_decay=arguments.weight_decay,
        clip=arguments.clip,
        seed=arguments.seed,
        augment=tuple(arguments.augment.split(",")),
        variants=arguments.variants,
        held_out=arguments.held_out,
        patience=arguments.patience,
        precision=arguments.precision,
        normalise=not arguments.plain,
    )


def _listener(arguments: argparse.Namespace, processes: Processes, bars: Steps) -> SessionListener:
    """Moves the bar of training at each step, and says the scores of each epoch."""

    def tell(now: TrainingPosition, number: tuple[int, int] | None) -> None:
        note = "" if number is None else f", round {number[0]}/{number[1]}"
        top1 = f", top-1 {now.scores.top1:.2f} %" if now.scores and now.scores.top1 is not None else ""
        bars(f"train{note}", now.step, now.steps, note=f"loss {now.loss:.4f}{top1}")
        if now.scores is not None and processes.first and not arguments.json:
            say(f"epoch {now.epoch}/{arguments.epochs}{note}: loss {now.loss:.4f}{top1} on held-out images")

    return tell


def _print(made: Finetuned, output: str) -> None:
    for block in made.blocks or ():
        say(
            f"block {', '.join(block.layers)}: error {100 * block.before:.2f} % before, "
            f"{100 * block.after:.2f} % after{'' if block.kept else ', left as it was'}"
        )
    if made.outcomes:
        last = made.outcomes[-1]
        if last.best.top1 is not None:
            say(
                f"top-1 on held-out images: {last.before.top1:.2f} % before, {last.best.top1:.2f} % after epoch "
                f"{last.best_epoch}"
            )
        if made.learnt is not None:
            report = made.compression.report
            totals = {"macs": report.macs, "parameters": report.parameters}
            ratios = (f"{total.ratio:.2f}x fewer {unit}" for unit, total in totals.items())
            pairs = sum(bool(row.rank) for row in report.layers.values())
            pruned = sum(row.channels is not None for row in report.layers.values())
            say(
                f"learnt: {' and '.join(ratios)}; {pairs} layers are pairs, {pruned} have fewer channels; "
                f"{made.learnt.by_budget} ranks and channels were taken at once to meet the budget, "
                f"{made.learnt.by_width} to come to numbers that run well"
            )
        early = ", stopped early" if last.stopped_early else ""
        say(f"{last.epochs} epochs in {last.seconds:.0f} s{early}")
    say(f"written to {output}")
