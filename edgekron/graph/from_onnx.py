"""Reads ONNX files: any opset from 11 on, turned into the hub's, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import inliner, version_converter

from edgekron.errors import UserError

from .factorized import DOMAIN
from .nodes import OPSET

if TYPE_CHECKING:
    from pathlib import Path

OLDEST_OPSET = 11
#: The metadata by which a hub file is known, and the format it is in.
MARK, FORMAT = "edgekron.hub", "1"


def read_onnx(path: Path) -> onnx.ModelProto:
    """The file, its external data included, checked by the ONNX checker.

    Raises ``UserError`` that says what is wrong with it.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except DecodeError as error:
        line = _first_line(error)
        raise UserError(f"{path} is truncated or no ONNX file ({line}); copy or export it again") from error
    except FileNotFoundError as error:
        missing = error.filename
        raise UserError(f"{path} keeps its weights in {missing}, which is missing; copy it beside {path}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise UserError(f"{path} is no valid ONNX model: {_first_line(error)}") from error
    if not proto.graph.node:
        raise UserError(f"{path} holds no graph; copy or export it again")
    return proto


def is_hub(proto: onnx.ModelProto) -> bool:
    """Whether a model was written by ``Hub.save``."""
    return any(prop.key == MARK for prop in proto.metadata_props)


def import_onnx(proto: onnx.ModelProto, source: str) -> ir.Model:
    """The model in the hub's opset. Raises ``UserError`` for an opset or an operator that cannot be converted."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise UserError(f"{source} has opset {opset}; export it with opset {OLDEST_OPSET} or newer")
    if any(function.domain == DOMAIN for function in proto.functions):
        raise UserError(f"{source} holds functions of EdgeKron but is no hub file; use the file that `compress` wrote")
    for node in proto.graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise UserError(
                f"{source}: node {node.name or node.output[0]} is control flow ({node.op_type}), which cannot be "
                "compiled; export the model without data-dependent branches"
            )
    if opset != OPSET:
        try:
            proto = version_converter.convert_version(inliner.inline_local_functions(proto), OPSET)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{source}: opset {opset} cannot be converted to {OPSET} ({_first_line(error)}); "
                f"export it with opset {OPSET}"
            ) from error
    try:
        return ir.serde.deserialize_model(proto)
    except (ValueError, TypeError, ir.serde.SerdeError) as error:
        raise UserError(f"{source} is no valid ONNX model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
