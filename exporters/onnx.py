"""From the hub to a standard ONNX file: only operators of the default domain, a dynamic batch, each factor stored once.

Each factorized node becomes the steps of ``edgekron.lowering.lower`` (see ``onnx_steps``); other nodes are the hub's.
The result is simplified by onnxsim, whose constant folding is kept from multiplying repeated factors out, and checked.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import onnxsim
from onnx import version_converter
from onnx_ir.passes import common

from edgekron.algebra import StructureError
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph.factorized import is_factorized, read_node
from edgekron.graph.nodes import OPSET, replace_node
from edgekron.graph.passes import infer_shapes
from edgekron.lowering import Step

from .onnx_steps import TILED_FROM, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgekron.graph import Factorized, Hub

#: Those to and from which the ONNX version converter takes every operator of the hub.
OPSETS = range(18, 24)


def export_onnx(
    hub: Hub,
    path: str | Path | None = None,
    *,
    opset: int = OPSET,
    simplify: bool = True,
    force: bool = False,
    forms: Mapping[str, Sequence[str]] | None = None,
) -> onnx.ModelProto:
    """The network as standard ONNX, written to ``path`` if there is one; the hub stays as it is.

    ``forms`` gives the forms of some layers by name, ahead of those in the hub and of the defaults. Raises
    ``UserError`` for an opset that is not in ``OPSETS``, an operator that the opset or the standard lacks, a form that
    is not exact for its stage, or a ``path`` that exists (unless ``force``).
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not supported; choose one from {OPSETS.start} to {OPSETS.stop - 1}")
    model = hub.copy().model
    _render_layers(model, forms or {})
    _refuse_other_domains(model)
    infer_shapes(model)
    common.ClearMetadataAndDocStringPass()(model)
    proto = ir.serde.serialize_model(model)
    if simplify:
        # Its folding spares a Tile by size, but would multiply out the kernels that are to be expanded at load.
        expanded = any(node.op_type == "Einsum" for node in proto.graph.node)
        threshold = f"{TILED_FROM // 1024}KB"
        proto, _ = onnxsim.simplify(proto, tensor_size_threshold=threshold, skip_constant_folding=expanded)
    if opset != OPSET:
        proto = _converted(proto, opset)
    _sign(proto, opset)
    onnx.checker.check_model(proto, full_check=True)
    if path is not None:
        write_file(path, proto.SerializeToString(), force)
    return proto


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
    for node in model.graph:
        if node.domain not in ("", "ai.onnx"):
            raise UserError(
                f"node {node.name} is {node.domain}.{node.op_type}, which is not a standard ONNX operator; "
                "export the original model without vendor operators"
            )


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"the network cannot be written in opset {opset} ({line}); use opset {OPSET}") from error


def _sign(proto: onnx.ModelProto, opset: int) -> None:
    """Replaces what other tools wrote about themselves, and asks for the oldest format that has the opset."""
    del proto.metadata_props[:]
    for thing in (proto.graph, *proto.graph.node):
        thing.doc_string = ""
        del thing.metadata_props[:]
    version = metadata.version("edgekron")
    proto.producer_name, proto.producer_version, proto.doc_string = "edgekron", version, ""
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    onnx.helper.set_model_props(proto, {"edgekron.version": version, "edgekron.opset": str(opset)})
