"""TBD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from edgekron.exporters.verify import Named, Names
    from edgekron.graph import Hub
    from edgekron.models.sources import Source


def _factorized(dense: Source, small: Source, said: list[str]) -> nn.Module | None:
    """The dense module with the factors of a folder; None, and why, where a factorized layer is no module of it."""
    from edgekron.modules.factorize import factorize_module

    if dense.module is None:
        return None
    try:
        return factorize_module(dense.module, small.hub)
    except UserError as error:
        said.append(f"there is no torch version of {small.name}, so that its hub was compared: {error}")
        return None


def _titled(versions: Sequence[Named]) -> list[Named]:
    """The same with short titles: a file by its name, unless two have the same."""
    from edgekron.exporters.verify import Named

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

    from edgekron.exporters.verify import Names
    from edgekron.exporters.verify.versions import OnnxVersion
    from edgekron.graph.identity import Identity
    from edgekron.graph.layers import layer_names

    graphs = [hub.model.graph for hub in hubs]
    if not hubs:
        files = [entry.version for entry in versions if isinstance(entry.version, OnnxVersion)]
        plain = [file for file in files if file.kind == "hub"] or [
            file for file in files if (file.identity or Identity()).original
        ]
        graphs = [ir.serde.deserialize_model(file.proto).graph for file in plain[:1]]
    values = [str(value.name) for graph in graphs for node in graph for value in node.outputs]
    layers = {str(node.outputs[0].name): name for graph in graphs for node, name in layer_names(graph).items()}
    return Names(frozenset(values), layers)
