"""Reads ONNX files: any opset from 7 on, turned into the hub's, checked; weights in other files included."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import defs
from onnx_ir.passes import common

from edgekron.errors import UserError

from .axes import remember_axes
from .factorized import DOMAIN
from .mending import mend, without_outside_weights
from .nodes import OPSET
from .opsets import convert_opset, first_line, opset_of
from .passes.as_float32 import as_float32
from .passes.dequantize import dequantize
from .passes.split_fused import split_fused
from .respell import every_node, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The oldest version that ONNX Runtime runs too, and from which ONNX's converter knows the way.
OLDEST_OPSET = 7
#: The metadata by which a hub file is known, and the format it is in.
MARK, FORMAT = "edgekron.hub", "1"
#: What one ONNX file can hold, and so what can be written again.
_LARGEST = 2**31 - 2**20


def read_onnx(path: Path) -> onnx.ModelProto:
    """The file's model, mended and checked by the ONNX checker; weights in other files are read by ``deserialize``.

    Raises ``UserError`` for a file that is missing, damaged or invalid, or whose operators nobody defines.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        proto = onnx.load(path, load_external_data=False)
        _check_text(proto, path)
        _check_weights(proto, path)
        _check_operators(proto, path)
        _check_ends(proto, path)
        # The checker looks for weights in other files beside a path, so it is given the path where it can be.
        onnx.checker.check_model(without_outside_weights(proto) if mend(proto) else str(path))
    except DecodeError as error:
        line = first_line(error)
        raise UserError(f"{path} is truncated or no ONNX file ({line}); copy or export it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except Exception as error:
        # Names that are no text, sizes that are no sizes: a damaged file can make any kind of error.
        raise UserError(f"{path} is no valid ONNX model: {first_line(error)}; export it again") from error
    if not proto.graph.node:
        raise UserError(f"{path} holds no graph; copy or export it again")
    return proto


def is_hub(proto: onnx.ModelProto) -> bool:
    """Whether a model was written by ``Hub.save``."""
    return any(prop.key == MARK for prop in proto.metadata_props)


def deserialize(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """The model with all its weights at hand. Raises ``UserError`` for a damaged model."""
    try:
        model = ir.serde.deserialize_model(proto)
        ir.external_data.set_base_dir(model.graph, path.parent)
        ir.external_data.load_to_model(model)
    except Exception as error:
        # A file can pass the checker and still be damaged in ways that its reader meets as any kind of error.
        raise UserError(f"{path} is no valid ONNX model: {first_line(error)}; export it again") from error
    return model


def import_onnx(proto: onnx.ModelProto, path: Path, *, dequantized: bool = False) -> ir.Model:
    """The model in the hub's opset and in float32, with the axes of the file in its metadata.

    ``dequantized`` folds a quantized graph back to the float one.

    Raises ``UserError`` for an opset or an operator that cannot be converted.
    """
    if any(function.domain == DOMAIN for function in proto.functions):
        raise UserError(f"{path} holds functions of EdgeKron but is no hub file; use the file that `compress` wrote")
    model = deserialize(proto, path)
    opset, newest = opset_of(model), defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        raise UserError(f"{path} has opset {opset}; export it with opset {OLDEST_OPSET} or newer")
    if opset > newest:
        raise UserError(f"{path} has opset {opset}; the newest that is known here is {newest}, export it with that")
    common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ir.external_data.load_to_model(model)
    remember_axes(model)
    for node in model.graph:
        # Layers are known by the names of their nodes; a node without one is known by its result.
        node.name = node.name or node.outputs[0].name
    model = convert_opset(model, OPSET, str(path), f"export it with opset {OPSET}")
    as_float32(model)
    split_fused(model, str(path))
    if dequantized:
        dequantize(model, str(path))
    return model


def _check_text(message: Message, path: Path) -> None:
    """Raises ``UserError`` for names or metadata that are no text: protobuf gives bytes in their place and reads on."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == FieldDescriptor.TYPE_STRING and any(isinstance(part, bytes) for part in parts):
            raise UserError(f"{path} is damaged: a {field.name} in it is no text; copy or export it again")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in parts:
                _check_text(part, path)


def _check_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Raises ``UserError`` for weights in files that are missing, too short or elsewhere, and for too many weights."""
    total = 0
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            total += len(tensor.raw_data)
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = path.parent / location
        inside = os.path.normpath(location) != ".." and not os.path.normpath(location).startswith(("../", "/"))
        if not location or not inside:
            raise UserError(f"{path} keeps its weights in {location!r}, outside its folder; export it again")
        if not file.is_file():
            raise UserError(f"{path} keeps its weights in {location}, which is missing; copy it beside {path}")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise UserError(f"{path}: {location} is too short for its weight {tensor.name}; copy it again, whole")
        total += length
    if total > _LARGEST:
        raise UserError(f"{path} has {total / 1e9:.1f} GB of weights; one ONNX file can hold 2 GB, so split the model")


def _check_operators(proto: onnx.ModelProto, path: Path) -> None:
    """Raises ``UserError`` that names the first node whose operator nobody defines, and counts all such nodes."""
    own = {(function.domain, function.name) for function in proto.functions}
    unknown = [
        node
        for node in every_node(proto.graph)
        if node.domain in ("", "ai.onnx") and not defs.has(node.op_type) and (node.domain, node.op_type) not in own
    ]
    if unknown:
        kinds = Counter(node.op_type for node in unknown)
        raise UserError(
            f"{path}: node {name_of(unknown[0])} is {unknown[0].op_type}, which is no operator of ONNX "
            f"({len(unknown)} such node{'' if len(unknown) == 1 else 's'}: {', '.join(sorted(kinds))}); "
            "export the model with standard operators"
        )


def _check_ends(proto: onnx.ModelProto, path: Path) -> None:
    """Raises ``UserError`` that names an input or output without a stated shape; the checker's message has no name."""
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
                raise UserError(
                    f"{path}: {kind} {value.name} states no shape; state it where the model is exported, or write the "
                    "model anew with onnx.shape_inference.infer_shapes"
                )


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from proto.graph.initializer
    for node in every_node(proto.graph):
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graph.initializer
