"""Writes a hub as one ONNX file: its factorized nodes in standard operators, simplified, checked and signed."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import onnxsim
from onnx_ir.passes import common

from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph.factorized import is_factorized, read_node
from edgekron.graph.identity import IDENTITY_KEY, Identity
from edgekron.graph.nodes import OPSET, replace_node
from edgekron.graph.opsets import convert_opset
from edgekron.graph.passes import infer_shapes

from .axes import name_axes, set_axes, size_bound, state_outputs
from .steps import TILED_FROM, lowered, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekron.graph import Hub

#: The operator sets in which a network can be written.
OPSETS = range(17, 25)
#: Prefix of the metadata keys that are EdgeKron's own; all other keys are the source's.
_OWN = "edgekron."


def export_onnx(
    hub: Hub,
    path: str | Path | None = None,
    *,
    opset: int | None = None,
    simplify: bool = True,
    force: bool = False,
    forms: Mapping[str, Sequence[str]] | None = None,
    fixed_size: bool = False,
    identity: Identity | None = None,
) -> onnx.ModelProto:
    """The network as standard ONNX, written to ``path`` if one is given; the hub stays as it is.

    ``opset`` is one of ``OPSETS``, the hub's own unless given. ``forms`` gives the forms of some factorized layers by
    name, ahead of those in the hub and of the defaults. With ``fixed_size`` a height and width that the source left
    open become those that the hub was loaded with. ``identity`` is that of the network if the hub holds it in other
    numbers. Raises ``UserError`` for an opset that is not in ``OPSETS``, an
    operator that the opset or the standard lacks, a form that is not exact for its stage, or a ``path`` that exists
    (unless ``force``).
    """
    opset = OPSET if opset is None else opset
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not supported; choose one from {OPSETS.start} to {OPSETS.stop - 1}")
    bound = fixed_size or size_bound(hub, forms)
    model = hub.copy().model
    _render_layers(model, forms or {})
    _refuse_other_domains(model)
    set_axes(model, keep_open=not bound)
    infer_shapes(model)
    state_outputs(model)
    common.ClearMetadataAndDocStringPass()(model)
    proto = ir.serde.serialize_model(model)
    if simplify:
        # onnxsim's folding leaves a large Tile alone, but would multiply out the kernels that are expanded at load.
        expanded = any(node.op_type == "Einsum" for node in proto.graph.node)
        threshold = f"{TILED_FROM // 1024}KB"
        proto, _ = onnxsim.simplify(proto, tensor_size_threshold=threshold, skip_constant_folding=expanded)
    if opset != OPSET:
        simplified = ir.serde.deserialize_model(proto)
        source = f"the network {model.graph.name}" if model.graph.name else "the network"
        proto = ir.serde.serialize_model(convert_opset(simplified, opset, source, f"use opset {OPSET}"))
    name_axes(proto, model)
    _sign(proto, opset, {**model.metadata_props, IDENTITY_KEY: (identity or hub.identity).to_text()})
    onnx.checker.check_model(proto, full_check=True)
    if path is not None:
        write_file(path, proto.SerializeToString(), force)
    return proto


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
        steps = lowered(factorized, forms.get(factorized.layer))
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


def _sign(proto: onnx.ModelProto, opset: int, props: Mapping[str, str]) -> None:
    """Replaces the notes of other tools by EdgeKron's, and asks for the oldest format that has the opset.

    Of ``props``, the hub's metadata, the source's own and the identity are kept.
    """
    for thing in (proto.graph, *proto.graph.node):
        thing.doc_string = ""
        del thing.metadata_props[:]
    version = metadata.version("edgekron")
    proto.producer_name, proto.producer_version, proto.doc_string = "edgekron", version, ""
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    kept = {key: value for key, value in props.items() if not key.startswith(_OWN) or key == IDENTITY_KEY}
    onnx.helper.set_model_props(proto, kept | {"edgekron.version": version, "edgekron.opset": str(opset)})
