"""The chain of proof on the command line: which versions each argument stands for, and the walk through them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError

from ._chain_tables import chain_json, notes, show_chain
from ._output import print_json, progress_bars, say
from ._sources import calibration, open_model
from ._verdict import check_conversions, judge_chain

if TYPE_CHECKING:
    from torch import nn

    from edgekron.exporters.chain import Named, Names
    from edgekron.graph import Hub

    from ._sources import Source


def run_chain(texts: Sequence[str], arguments: argparse.Namespace) -> int:
    """Walks the chain of the arguments, prints it, and gives exit code 1 when a bound is not kept."""
    from edgekron.exporters.chain import conclusion, links, walk
    from edgekron.exporters.verify import cases

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
    from edgekron.exporters.chain import Named, TorchVersion
    from edgekron.exporters.versions import open_version

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
        source = open_model(text, arguments)
        module = source.module
        if folder:
            _same_layers(text, source, hubs)
            module = None if dense is None else _factorized(dense, source, said)
            if dense is not None and module is None:
                versions.append(Named(f"{dense.name} (hub)", open_version(dense.hub)))
        elif module is not None:
            dense = source
        if module is not None:
            shown = TorchVersion(module, source.hub, source.hub.plan_hash)
            versions.append(Named(f"{source.name} (torch)", shown))
        hubs.append(source.hub)
        if folder or module is None or not before_folder:
            versions.append(Named(f"{source.name} (hub)", open_version(source.hub)))
    return _titled(versions), hubs, said


def _factorized(dense: Source, small: Source, said: list[str]) -> nn.Module | None:
    """The dense module with the factors of a folder; None, and why, where a factorized layer is no module of it."""
    from edgekron.torch_model import factorize_module

    if dense.module is None:
        return None
    try:
        return factorize_module(dense.module, small.hub)
    except UserError as error:
        said.append(f"there is no torch version of {small.name}, so that its hub was compared: {error}")
        return None


def _same_layers(folder: str, source: Source, hubs: Sequence[Hub]) -> None:
    """Raises ``UserError`` when a folder is of another network than the hubs before it."""
    names = [layer.name for layer in source.hub.layers()]
    if hubs and names != [layer.name for layer in hubs[0].layers()]:
        raise UserError(f"{folder} has other layers than the reference; name the model that was compressed.")


def _titled(versions: Sequence[Named]) -> list[Named]:
    """The same with short titles: a file by its name, unless two have the same."""
    from edgekron.exporters.chain import Named

    short = [Path(entry.title).name if "/" in entry.title else entry.title for entry in versions]
    return [
        Named(name if short.count(name) == 1 else entry.title, entry.version)
        for name, entry in zip(short, versions, strict=True)
    ]


def _shape(versions: Sequence[Named]) -> tuple[int, ...]:
    """The input [C, H, W]: a size that one version leaves open is that of another."""
    shapes = [entry.version.input_shape for entry in versions]
    full = next((shape for shape in shapes if all(n > 0 for n in shape)), None)
    if full is None:
        raise UserError(
            "the size of the input is open in every version; give the folder that compress wrote, which knows one."
        )
    return full


def _names(versions: Sequence[Named], hubs: Sequence[Hub]) -> Names:
    """The values of the hubs, in which a factorized layer is one node; without one, those of the first .onnx file that
    is not compressed: of another it is not known which values are within a layer.
    """
    import onnx_ir as ir

    from edgekron.exporters.chain import Names
    from edgekron.exporters.versions import OnnxVersion
    from edgekron.graph.layers import layer_names

    graphs = [hub.model.graph for hub in hubs]
    if not hubs:
        files = [entry.version for entry in versions if isinstance(entry.version, OnnxVersion)]
        plain = [file for file in files if file.kind == "hub"] or [file for file in files if file.plan is None]
        graphs = [ir.serde.deserialize_model(file.proto).graph for file in plain[:1]]
    values = [str(value.name) for graph in graphs for node in graph for value in node.outputs]
    layers = {str(node.outputs[0].name): name for graph in graphs for node, name in layer_names(graph).items()}
    return Names(frozenset(values), layers)
