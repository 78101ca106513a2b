"""From the hub to a standard ONNX file: only operators of the default domain, each factor stored once.

Each factorized node becomes the steps of ``edgekron.algebra.lowering.lower`` (see ``onnx_steps``); other nodes are the
hub's. The result is simplified by onnxsim, whose constant folding is kept from multiplying repeated factors out, and
checked.

The batch is dynamic, unless the network came from an ONNX file with a fixed one. A height and width that such a file
left open stay open where no layer's form depends on them, see ``size_bound``. The file's metadata is kept.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import onnxsim
from onnx_ir.passes import common

from edgekron.algebra import StructureError
from edgekron.algebra.steps import Step
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph.axes import open_sizes, remembered_axes
from edgekron.graph.factorized import is_factorized, read_node
from edgekron.graph.identity import IDENTITY_KEY
from edgekron.graph.nodes import OPSET, replace_node
from edgekron.graph.opsets import convert_opset
from edgekron.graph.passes import infer_shapes

from .onnx_steps import TILED_FROM, depends_on_size, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekron.graph import Factorized, Hub

#: Those in which a network can be written.
OPSETS = range(17, 25)
#: Prefix of the metadata that is EdgeKron's own; all other is the source's.
_OWN = "edgekron."


def export_onnx(
    hub: Hub,
    path: str | Path | None = None,
    *,
    opset: int = OPSET,
    simplify: bool = True,
    force: bool = False,
    forms: Mapping[str, Sequence[str]] | None = None,
    fixed_size: bool = False,
) -> onnx.ModelProto:
    """The network as standard ONNX, written to ``path`` if there is one; the hub stays as it is.

    ``forms`` gives the forms of some layers by name, ahead of those in the hub and of the defaults. With
    ``fixed_size`` a height and width that the source left open become those that the hub was loaded with. Raises
    ``UserError`` for an opset that is not in ``OPSETS``, an operator that the opset or the standard lacks, a form that
    is not exact for its stage, or a ``path`` that exists (unless ``force``).
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not supported; choose one from {OPSETS.start} to {OPSETS.stop - 1}")
    bound = fixed_size or size_bound(hub, forms)
    model = hub.copy().model
    _render_layers(model, forms or {})
    _refuse_other_domains(model)
    _set_axes(model, keep_open=not bound)
    infer_shapes(model)
    _state_outputs(model)
    common.ClearMetadataAndDocStringPass()(model)
    proto = ir.serde.serialize_model(model)
    if simplify:
        # Its folding spares a Tile by size, but would multiply out the kernels that are to be expanded at load.
        expanded = any(node.op_type == "Einsum" for node in proto.graph.node)
        threshold = f"{TILED_FROM // 1024}KB"
        proto, _ = onnxsim.simplify(proto, tensor_size_threshold=threshold, skip_constant_folding=expanded)
    if opset != OPSET:
        simplified = ir.serde.deserialize_model(proto)
        source = f"the network {model.graph.name}" if model.graph.name else "the network"
        proto = ir.serde.serialize_model(convert_opset(simplified, opset, source, f"use opset {OPSET}"))
    _name_axes(proto, model)
    _sign(proto, opset, {**model.metadata_props, IDENTITY_KEY: hub.identity.to_text()})
    onnx.checker.check_model(proto, full_check=True)
    if path is not None:
        write_file(path, proto.SerializeToString(), force)
    return proto


def size_bound(hub: Hub, forms: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Names of the layers whose forms are exact for one size of the input alone, where the source left its size open.

    With any such layer ``export_onnx`` writes the size that the hub was loaded with.
    """
    if not open_sizes(hub.model):
        return []
    factorized = (read_node(node) for node in hub.model.graph if is_factorized(node))
    return [
        layer.layer
        for layer in factorized
        if layer.kind == "conv" and depends_on_size(onnx_steps(layer, (forms or {}).get(layer.layer)))
    ]


def size_notice(hub: Hub) -> list[str]:
    """What to tell a user whose network's open size had to be fixed: one sentence, or none."""
    bound = size_bound(hub)
    if not bound:
        return []
    size = "x".join(map(str, hub.input_shape[1:]))
    return [
        (
            f"the input's size is fixed to {size}: the forms of {', '.join(bound)} depend on it; "
            'give these layers the forms ["mix", "mix"] or ["dense"] in the plan to keep it open'
        )
    ]


def onnx_steps(factorized: Factorized, forms: Sequence[str] | None = None) -> tuple[Step, ...]:
    """The steps of a layer in ONNX: in ``forms``, else its own for "onnx", else the defaults.

    Raises ``UserError`` for a form that is unknown or not exact for its stage.
    """
    try:
        return factorized.steps("onnx", forms)
    except StructureError as error:
        raise UserError(f"layer {factorized.layer}: {error}") from error


def _render_layers(model: ir.Model, forms: Mapping[str, Sequence[str]]) -> None:
    names = set()
    for node in list(model.graph):
        if not is_factorized(node):
            continue
        factorized = read_node(node)
        names.add(factorized.layer)
        x = node.inputs[0]
        if x is None:
            raise AssertionError(f"the factorized layer {factorized.layer} has no input")
        size = (1, 1) if factorized.kind == "linear" else _size(x, factorized.layer)
        steps = onnx_steps(factorized, forms.get(factorized.layer))
        replace_node(node, render(model.graph, x, size, factorized, steps))
    if unknown := set(forms) - names:
        raise UserError(f"there is no factorized layer {', '.join(sorted(unknown))} to give a form to")
    model.functions.clear()
    model.opset_imports.pop("edgekron", None)


def _size(x: ir.Value, layer: str) -> tuple[int, int]:
    dims = list(x.shape or ())
    if len(dims) == 4 and isinstance(dims[2], int) and isinstance(dims[3], int):
        return dims[2], dims[3]
    raise UserError(f"layer {layer}: the size of its input is not known; load the model with its input shape")


def _refuse_other_domains(model: ir.Model) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx"):
            raise UserError(
                f"node {node.name} is {node.domain}.{node.op_type}, which is not a standard ONNX operator; "
                "export the original model without vendor operators"
            )


def _set_axes(model: ir.Model, *, keep_open: bool) -> None:
    """Gives the input the batch that its file had and, with ``keep_open``, the sizes that were open there.

    The symbols are those of the hub; ``_name_axes`` gives them the file's names when all is done.
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


def _state_outputs(model: ir.Model) -> None:
    """Gives outputs of which nothing can be inferred the shape that the source states."""
    axes = remembered_axes(model)
    for output in model.graph.outputs:
        if output.shape is None and str(output.name) in axes:
            output.shape = ir.Shape(axes[str(output.name)])


def _name_axes(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Gives open sizes of inputs and outputs the names that they had in the source."""
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


def _sign(proto: onnx.ModelProto, opset: int, props: Mapping[str, str]) -> None:
    """Replaces what other tools wrote about themselves, and asks for the oldest format that has the opset.

    Of ``props``, the hub's metadata, the source's own are kept, and the identity of the network.
    """
    for thing in (proto.graph, *proto.graph.node):
        thing.doc_string = ""
        del thing.metadata_props[:]
    version = metadata.version("edgekron")
    proto.producer_name, proto.producer_version, proto.doc_string = "edgekron", version, ""
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    kept = {key: value for key, value in props.items() if not key.startswith(_OWN) or key == IDENTITY_KEY}
    onnx.helper.set_model_props(proto, kept | {"edgekron.version": version, "edgekron.opset": str(opset)})
