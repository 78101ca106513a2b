"""The chain of proof on the command line: which versions each argument stands for, and the walk through them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError
from edgekron.exporters.verify.names import _factorized, _names, _shape, _titled
from edgekron.exporters.verify.verdict import check_conversions, judge_chain

from .shared.chain import chain_json, notes, show_chain
from .shared.options import calibration, open_source
from .shared.output import print_json, progress_bars, say

if TYPE_CHECKING:
    from edgekron.exporters.verify import Named
    from edgekron.graph import Hub
    from edgekron.models.sources import Source


def run_chain(texts: Sequence[str], arguments: argparse.Namespace) -> int:
    """Walks the chain of the arguments, prints it, and gives exit code 1 when a bound is not kept."""
    from edgekron.exporters.verify import conclusion, links, walk
    from edgekron.exporters.verify.compare import cases

    versions, hubs, said = open_chain(texts, arguments)
    check_conversions(links(versions), arguments)
    shape = _shape(versions)
    batches = calibration(arguments, shape)
    images = np.concatenate(list(batches)) if batches else None
    inputs = list(cases(shape, images))
    if images is None:
        # The largest of the random cases last: it is the one that the layers are compared on.
        inputs.sort(key=lambda entry: entry[0] == "random, batch 3")
    with progress_bars() as progress:
        chain = walk(
            versions,
            inputs,
            _names(versions, hubs),
            images=images is not None,
            progress=lambda done, total: progress("images", done, total),
        )
    verdict = judge_chain(chain, arguments)
    if arguments.json:
        told = {"conclusion": conclusion(chain), "notes": [*said, *notes(chain)]}
        print_json({**chain_json(chain), **told, **verdict.to_json()})
        return 0 if verdict.passed else 1
    show_chain(chain)
    for line in (conclusion(chain), *said, *notes(chain), *verdict.lines()):
        say(line)
    return 0 if verdict.passed else 1


def open_chain(texts: Sequence[str], arguments: argparse.Namespace) -> tuple[list[Named], list[Hub], list[str]]:
    """(the versions that the arguments stand for, in their order, the hubs among them, what to tell the user).

    A module stands for itself and its hub, a folder for the module before it with its factors, where there is one, and
    its hub; files stand for themselves. A module that a folder follows goes on as the factorized module, without its
    own hub, unless its factorized layers are no modules; an .onnx file as reference that a folder follows goes on as
    its hub. Raises ``UserError``.
    """
    from edgekron.exporters.verify import Named, TorchVersion
    from edgekron.exporters.verify.versions import open_version

    versions: list[Named] = []
    hubs: list[Hub] = []
    said: list[str] = []
    dense: Source | None = None
    for index, text in enumerate(texts):
        folder = Path(text).is_dir()
        before_folder = index + 1 < len(texts) and Path(texts[index + 1]).is_dir()
        if Path(text).suffix in (".onnx", ".tflite"):
            versions.append(Named(text, open_version(text)))
            if index > 0 or not before_folder or Path(text).suffix == ".tflite":
                continue
        source = open_source(text, arguments)
        module = source.module
        if folder:
            _same_layers(text, source, hubs)
            module = None if dense is None else _factorized(dense, source, said)
            if dense is not None and module is None:
                versions.append(Named(f"{dense.name} (hub)", open_version(dense.hub)))
        elif module is not None:
            dense = source
        if module is not None:
            shown = TorchVersion(module, source.hub)
            versions.append(Named(f"{source.name} (torch)", shown))
        hubs.append(source.hub)
        if folder or module is None or not before_folder:
            versions.append(Named(f"{source.name} (hub)", open_version(source.hub)))
    return _titled(versions), hubs, said


def _same_layers(folder: str, source: Source, hubs: Sequence[Hub]) -> None:
    """Raises ``UserError`` when a folder is of another network than the hubs before it."""
    names = [layer.name for layer in source.hub.layers()]
    if hubs and names != [layer.name for layer in hubs[0].layers()]:
        raise UserError(f"{folder} has other layers than the reference; name the model that was compressed.")
