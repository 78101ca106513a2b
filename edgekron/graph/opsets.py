"""Rewrites a model from one version of the standard's operators (its opset) to another.

The work is that of ONNX's version converter, given the model without its large weights, so that a file of any size
costs next to nothing. The converter lacks some steps, which are taken here:

- Operators that the older version lacks, and that the standard defines by older ones (Gelu, Mish, Swish, ...), are
  replaced by their definitions.
- ``Split``, ``Pad`` and other operators that the older version spells differently are respelled, see ``respell``.
- Nodes of old versions that the converter carries over with another meaning keep theirs, see ``older``.
- Operators whose newer version only allows more types are hidden from the converter, which knows no way down for them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, inliner, shape_inference, version_converter

from edgekron.errors import UserError

from .older import keep_meaning
from .outline import fill_in, outline
from .respell import RespellError, every_node, name_of, respell

#: The domain in which nodes are kept from the converter.
_ASIDE = "edgekron.aside"
#: Operators and the version at which nothing but their types changed, for which the converter knows no way down.
_ONLY_TYPES = {"GlobalMaxPool": 22, "ConstantOfShape": 20, "LpPool": 18, "Pad": 18, "Split": 18, "GridSample": 20}
#: Operators that got another meaning at a version, and are defined by older operators.
_REDEFINED = {"GroupNormalization": 21}


def convert_opset(model: ir.Model, target: int, source: str, remedy: str) -> ir.Model:
    """The model in opset ``target``, with the same weights; ``model`` itself if that is its opset.

    Raises ``UserError`` that names ``source``, the node and the ``remedy`` for a node that the target cannot write.
    Initializers must not be among the model's inputs.
    """
    opset = opset_of(model)
    if opset == target:
        return model
    proto, weights = outline(model)
    try:
        if opset > target:
            proto = _downwards(proto, opset, target, source, remedy)
        else:
            keep_meaning(proto, opset, _ASIDE)
        if any(node.domain == _ASIDE for node in every_node(proto.graph)):
            proto.opset_import.append(onnx.helper.make_opsetid(_ASIDE, 1))
        proto = version_converter.convert_version(proto, target)
    except UserError:
        raise
    except RespellError as error:
        raise UserError(f"{source}: {error} in opset {target}; {remedy}") from None
    except (RuntimeError, ValueError) as error:
        line = first_line(error).rpartition("failed: ")[2]
        raise UserError(f"{source}: opset {opset} cannot be written as {target} ({line}); {remedy}") from error
    for node in every_node(proto.graph):
        if node.domain == _ASIDE:
            node.domain = ""
    converted = ir.serde.deserialize_model(proto)
    converted.opset_imports.pop(_ASIDE, None)
    fill_in(converted, weights)
    converted.metadata_props.update(model.metadata_props)
    return converted


def opset_of(model: ir.Model) -> int:
    """The opset of a model's standard operators; 0 for a model that names none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def first_line(error: Exception) -> str:
    """The first line of another library's message; the error's type for an empty one."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _downwards(proto: onnx.ModelProto, opset: int, target: int, source: str, remedy: str) -> onnx.ModelProto:
    newer = sorted({node.op_type for node in every_node(proto.graph) if _written_out(node, opset, target)})
    if newer:
        names = [("", name) for name in newer]
        proto = inliner.inline_selected_functions(proto, names, inline_schema_functions=True)
    proto = shape_inference.infer_shapes(proto, data_prop=True)
    for node in every_node(proto.graph):
        if not node.domain and _first_version(node.op_type) > target:
            raise UserError(
                f"{source}: node {name_of(node)} is {node.op_type}, which opset {target} does not have; {remedy}"
            )
    respell(proto, opset, target)
    for node in every_node(proto.graph):
        if not node.domain and target < _ONLY_TYPES.get(node.op_type, 0) <= opset:
            node.domain = _ASIDE
    return proto


def _written_out(node: onnx.NodeProto, opset: int, target: int) -> bool:
    """Whether the standard defines a node's operator by others, and ``target`` lacks it in its present meaning."""
    if node.domain or not defs.has(node.op_type):
        return False
    # Their stubs lack both attributes.
    schema: Any = defs.get_schema(node.op_type, opset)
    defined = schema.has_function or schema.has_context_dependent_function
    redefined = target < _REDEFINED.get(node.op_type, 0) <= opset
    return bool(defined and (redefined or _first_version(node.op_type) > target))


def _first_version(operator: str) -> int:
    """The opset that brought an operator; 0 for one that the standard does not have."""
    return min((s.since_version for s in _history().get(operator, ())), default=0)


@cache
def _history() -> dict[str, list[defs.OpSchema]]:
    """All versions of every standard operator."""
    found: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, []).append(schema)
    return found
