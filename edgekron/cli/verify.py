"""``edgekron verify``: how far the versions of a network are apart, step by step, end to end and by layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgekron.errors import UserError

from .shared.chain import show_chain
from .shared.options import add_data, add_factory, calibration, input_shape, open_source
from .shared.output import print_json, progress_bars, say

if TYPE_CHECKING:
    from edgekron.exporters.verify import ComparisonVerdict, VersionChain

#: Real images to compare on unless the user says how many.
_IMAGES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """REFERENCE and what came of it, and when to say no."""
    kinds = "a bundled name, an .onnx, .pt2 or .tflite file, or a folder written by compress"
    parser.add_argument("reference", metavar="REFERENCE", help=kinds)
    parser.add_argument(
        "candidates",
        metavar="CANDIDATE",
        nargs="+",
        help="the same; several are a chain, such as DIR out.onnx out.tflite out-int8.tflite: each version is compared "
        "with the one it came from, and the errors of each kind of change, such as decomposition, conversion and "
        "quantization, are told apart; then --tolerance is for conversions, --sqnr and --agreement for quantizations "
        "and for the last version",
    )
    parser.add_argument("--tolerance", type=float, metavar="X", help="exit code 1 if a relative error exceeds X")
    parser.add_argument("--sqnr", type=float, metavar="DB", help="exit code 1 if an output's SQNR on DATA is below DB")
    parser.add_argument(
        "--agreement", type=float, metavar="P", help="exit code 1 if less than P %% of DATA gets the same class"
    )
    add_factory(parser)
    add_data(parser, _IMAGES)


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables and the verdict; exit code 1 when a bound is not kept."""
    import numpy as np

    from edgekron.exporters import verify

    bounds = verify.Bounds(arguments.tolerance, arguments.sqnr, arguments.agreement)
    if (bounds.sqnr is not None or bounds.agreement is not None) and not arguments.data:
        raise UserError("--sqnr and --agreement are judged on real images; give --data.")
    texts = [arguments.reference, *arguments.candidates]
    opening = verify.open_versions(texts, lambda text: open_source(text, arguments))
    verify.check_bounds(verify.links(opening.versions), bounds)
    inputs = verify.common_inputs(opening.versions, input_shape(arguments.input_shape))
    batches = calibration(arguments, inputs)
    images = np.concatenate(list(batches)) if batches else None
    with progress_bars() as progress:
        chain = verify.walk(
            opening.versions,
            list(verify.cases(inputs[0].shape, images, dtype=inputs[0].dtype)),
            opening.names,
            images=images is not None,
            progress=lambda done, total: progress("images", done, total),
        )
    verdict = verify.judge(chain, bounds)
    sentence, notes = verify.conclusion(chain), [*opening.notes, *verify.notes(chain)]
    if arguments.json:
        told = {"conclusion": sentence, "notes": notes}
        pair = _pair_json(texts, chain, verdict) if chain.pair else {}
        print_json({**chain.to_json(), **told, **verdict.to_json(), **pair})
    else:
        show_chain(chain)
        for line in (sentence, *notes, *verdict.lines()):
            say(line)
    return 0 if verdict.passed else 1


def _pair_json(texts: list[str], chain: VersionChain, verdict: ComparisonVerdict) -> dict[str, object]:
    """One comparison as plain data; its bounds are by measure, as all are of one step."""
    (step,) = chain.steps
    error, *real = (measure.to_json() for measure in verdict.measures)
    return {
        "reference": texts[0],
        "candidate": texts[1],
        "outputs": [row.to_json() for row in step.outputs],
        "layers": [row.to_json() for row in step.within],
        "precision": chain.versions[1].version.precision,
        **{str(measure["measure"]): measure["value"] for measure in (error, *real)},
        "tolerance": error["bound"],
        "bounds": {str(measure["measure"]): measure["bound"] for measure in real},
    }
