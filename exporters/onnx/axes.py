"""The open sizes of an ONNX file's inputs and outputs, and their names.

A network that was an ONNX file keeps that file's batch, open or fixed, and the names of its open sizes. A height and
width that the file left open stay open, unless the nodes of a layer are exact for one size alone (``size_bound``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.graph.axes import open_sizes, remembered_axes
from edgekron.graph.factorized import is_factorized, read_node

from .steps import depends_on_size, lowered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from edgekron.graph import Hub


def size_bound(hub: Hub, forms: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Names of the layers whose forms are exact for one size of the input alone; none if the source fixed the size.

    If there are such layers, ``export_onnx`` writes the size that the hub was loaded with.
    """
    if not open_sizes(hub.model):
        return []
    factorized = (read_node(node) for node in hub.model.graph if is_factorized(node))
    return [
        layer.layer
        for layer in factorized
        if layer.kind == "conv" and depends_on_size(lowered(layer, (forms or {}).get(layer.layer)))
    ]


def size_notice(hub: Hub, forms: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """One sentence for the user if the network's open size has to be fixed, else none."""
    bound = size_bound(hub, forms)
    if not bound:
        return []
    size = "x".join(map(str, hub.input_shape[1:]))
    return [
        (
            f"the input's size is fixed to {size}: the forms of {', '.join(bound)} depend on it; "
            'give these layers the forms ["mix", "mix"] or ["dense"] in the plan to keep it open'
        )
    ]


def set_axes(model: ir.Model, *, keep_open: bool) -> None:
    """Gives the input the batch of its source file and, with ``keep_open``, the open sizes of that file.

    Open sizes have the hub's symbols until ``name_axes`` gives them the source's names at the end of an export.
    """
    value = model.graph.inputs[0]
    sizes = remembered_axes(model).get(str(value.name))
    if sizes is None or value.shape is None or len(sizes) != len(value.shape):
        return
    given = list(value.shape)
    batch = sizes[0] if isinstance(sizes[0], int) else given[0]
    opened = [
        f"size{axis}" if keep_open and not isinstance(size, int) else given[axis]
        for axis, size in enumerate(sizes)
        if axis
    ]
    value.shape = ir.Shape([batch, *opened])
    for output in model.graph.outputs:
        output.shape = None


def state_outputs(model: ir.Model) -> None:
    """Gives every output whose shape could not be inferred the shape that the source states."""
    axes = remembered_axes(model)
    for output in model.graph.outputs:
        if output.shape is None and str(output.name) in axes:
            output.shape = ir.Shape(axes[str(output.name)])


def name_axes(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Gives the open sizes of inputs and outputs their names in the source."""
    axes = remembered_axes(model)
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        names = axes.get(value.name)
        if names is None or len(names) != len(dims):
            continue
        for dim, name in zip(dims, names, strict=True):
            if not dim.HasField("dim_value") and not isinstance(name, int):
                dim.Clear()
                if name is not None:
                    dim.dim_param = name
