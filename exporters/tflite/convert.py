"""From an ONNX graph to a TFLite program, node by node.

Every node is translated before anything is refused, so that one error names all nodes that cannot be exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.factorized import is_factorized, read_node

from . import operators as _operators  # noqa: F401  fills the table of translators
from .factorized import factorized
from .folding import fold
from .fusion import fuse
from .layout import Value, standard
from .program import Program, Tensor
from .registry import TRANSLATORS
from .translation import Call, Translation, UnsupportedError, describe, layer_name
from .unstride import unstride

Forms = Mapping[str, Sequence[str]]


def convert(model: ir.Model, *, batch: int = 1, forms: Forms | None = None) -> Program:
    """The program of a float32 ONNX model whose first input axis is the batch, fixed to ``batch``.

    ``forms`` maps names of factorized layers to the forms of their stages. Raises ``UnsupportedError`` with every
    node that has no exact translation, and ``UserError`` for an input or a batch that does not fit.
    """
    if batch < 1:
        raise UserError(f"a batch of {batch} is not possible; it must be at least 1")
    translation = Translation(Program(), model.opset_imports.get("", 1))
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            _enter(translation, value, batch)
    _check_forms(model, forms or {})
    problems = []
    for node in model.graph:
        try:
            _translate(translation, node, forms or {})
        except UnsupportedError as error:
            problems.append(str(error))
    if problems:
        raise UnsupportedError(_sentence(problems))
    for value in model.graph.outputs:
        _leave(translation, value)
    translation.program.prune()
    fuse(translation.program)
    unstride(translation.program)
    translation.program.prune()
    return translation.program


def _enter(translation: Translation, value: ir.Value, batch: int) -> None:
    """An input of the file: NHWC where it has four axes, with the batch in front."""
    name = value.name or "input"
    if value.dtype not in (ir.DataType.FLOAT, None):
        raise UserError(f"input {name!r} is {value.dtype}, but a TFLite export is float32; cast inside the network")
    dims = list(value.shape or ())
    if not dims or any(not isinstance(d, int) for d in dims[1:]):
        raise UserError(
            f"input {name!r} has shape {[str(d) for d in dims]}; TFLite needs every size but the batch: "
            "give the input shape when loading the network"
        )
    if isinstance(dims[0], int) and dims[0] != batch:
        raise UserError(
            f"the batch of input {name!r} is fixed to {dims[0]}; export with batch={dims[0]} or load a network with "
            "a dynamic batch"
        )
    shape = (batch, *(d for d in dims[1:] if isinstance(d, int)))
    order = standard(len(shape))
    tensor = Tensor(name, tuple(shape[a] for a in order))
    translation.program.inputs[name] = tensor
    translation.values[value] = Value(tensor, order)


def _translate(translation: Translation, node: ir.Node, forms: Forms) -> None:
    known = all(translation.known(value) for value in node.inputs)
    layer = layer_name(node)
    if known and fold(translation, node):
        return
    special = is_factorized(node)
    if not special and (node.domain or node.op_type not in TRANSLATORS):
        raise UnsupportedError(
            f"{describe(node, layer)}: the TFLite exporter has no translation for it; "
            "replace it in the network, or export to ONNX"
        )
    if not known:
        # An input comes from a node that was refused; that node is reported.
        return
    call = Call(translation, node, layer)
    if special:
        factorized(call, forms)
    else:
        TRANSLATORS[node.op_type](call)


def _leave(translation: Translation, value: ir.Value) -> None:
    """An output of the file, a tensor of its own in the standard order."""
    name, program = value.name or "output", translation.program
    array = translation.constant(value)
    if array is not None:
        raise UserError(f"output {name!r} does not depend on the input; remove it from the network's outputs")
    given = translation.values[value]
    tensor = translation.arranged(given, standard(len(given.order))).tensor
    if tensor in program.inputs.values() or tensor in program.outputs.values():
        shape = program.integers(f"{name}/shape", tensor.shape)
        tensor = program.emit("RESHAPE", [tensor, shape], tensor.shape, name, newShape=list(tensor.shape))
    tensor.name = name
    program.outputs[name] = tensor


def _check_forms(model: ir.Model, forms: Forms) -> None:
    names = [read_node(node).layer for node in model.graph if is_factorized(node)]
    if unknown := sorted(set(forms) - set(names)):
        raise UserError(f"forms are given for {unknown}, which are no factorized layers; those are {names or 'none'}")


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return f"cannot export to TFLite: {problems[0]}"
    return f"cannot export to TFLite, {len(problems)} nodes: " + " | ".join(problems)
