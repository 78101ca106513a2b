"""From an ONNX graph to a TFLite program, node by node.

Every node is translated before anything is refused, so that one error names all nodes that cannot be exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.factorized import is_factorized, read_node

from .factorized import factorized
from .folding import SHAPES, fold
from .functions import expand, has_body, translatable
from .fusion import fuse
from .gelu import join_gelu
from .hard_swish import join_hard_swish
from .integers import for_integers
from .layout import Value, standard
from .operators import TRANSLATORS
from .program import Program, Tensor
from .translation import Call, Translation, UnsupportedError, describe, layer_name, used
from .unstride import unstride

Forms = Mapping[str, Sequence[str]]

#: The largest rank whose operators every runtime has.
MAX_RANK = 5
_MOVES = {"RESHAPE": 8, "TRANSPOSE": 6}
#: Axes of feature maps in the inputs and outputs of a file: as runtimes compute, or as in ONNX.
LAYOUTS = ("nhwc", "nchw")
DEFAULT_LAYOUT = "nhwc"


def convert(
    model: ir.Model,
    *,
    batch: int = 1,
    forms: Forms | None = None,
    layout: str = DEFAULT_LAYOUT,
    integers: bool = False,
) -> Program:
    """The program of a float32 ONNX model whose first input axis is the batch, fixed to ``batch``.

    ``forms`` maps names of factorized layers to the forms of their stages; ``layout``, one of ``LAYOUTS``, is that of
    feature maps among the inputs and outputs; ``integers`` says that the file is to become int8 (``for_integers``).
    Raises ``UnsupportedError`` with every node that has no exact translation, and ``UserError`` for an input, a layout
    or a batch that does not fit.
    """
    if batch < 1:
        raise UserError(f"a batch of {batch} is not possible; it must be at least 1")
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}; choose one of them")
    model = join_hard_swish(join_gelu(model))
    translation = Translation(Program(), model.opset_imports.get("", 1))
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            _enter(translation, value, batch, layout)
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
        _leave(translation, value, layout)
    translation.program.prune()
    fuse(translation.program)
    if integers:
        for_integers(translation.program)
    unstride(translation.program)
    translation.program.prune()
    _check_ranks(translation.program)
    return translation.program


def _enter(translation: Translation, value: ir.Value, batch: int, layout: str) -> None:
    """Makes ``value`` an input of the file, with the batch in front; a feature map in ``layout``.

    The first axis of the first input must be the batch. Another input may have a fixed first axis, which is kept.
    """
    name = value.name or "input"
    if value.dtype not in (ir.DataType.FLOAT, None):
        raise UserError(f"input {name!r} is {value.dtype}, but a TFLite export is float32; cast inside the network")
    dims = list(value.shape or ())
    if value.shape is None or any(not isinstance(d, int) for d in dims[1:]):
        raise UserError(
            f"input {name!r} has shape {[str(d) for d in dims]}; TFLite needs every size but the batch: "
            "give the input shape when loading the network"
        )
    first = not translation.program.inputs
    if first and dims and isinstance(dims[0], int) and dims[0] != batch:
        raise UserError(
            f"the batch of input {name!r} is fixed to {dims[0]}; export with batch={dims[0]} or load a network with "
            "a dynamic batch"
        )
    shape = tuple(d if isinstance(d, int) else batch for d in dims)
    if 0 in shape:
        raise UserError(f"input {name!r} has shape {list(shape)}, which holds no values; give it at least one")
    order = standard(len(shape)) if layout == DEFAULT_LAYOUT else tuple(range(len(shape)))
    tensor = Tensor(name, tuple(shape[a] for a in order))
    translation.program.inputs[name] = tensor
    translation.values[value] = Value(tensor, order)


def _translate(translation: Translation, node: ir.Node, forms: Forms) -> None:
    known = all(translation.known(value) for value in node.inputs)
    layer = layer_name(node)
    if known and fold(translation, node):
        return
    if known and is_factorized(node):
        factorized(Call(translation, node, layer), forms)
    elif known and _has_translator(node, translation.opset):
        call = Call(translation, node, layer)
        TRANSLATORS[node.op_type](call)
        if missing := [value.name for value in node.outputs if used(value) and not translation.known(value)]:
            call.refuse(f"its outputs {missing} have no TFLite operator", "use the first output alone")
    elif known and expand(translation, node, layer, lambda inner: _translate(translation, inner, forms)):
        return
    elif known or not (is_factorized(node) or _may_be_translated(node, translation.opset)):
        # Where an input comes from a node that was refused, that node is reported, and this one if it would be too.
        raise UnsupportedError(
            f"{describe(node, layer)}: the TFLite exporter has no translation for it; "
            "replace it in the network, or export to ONNX"
        )


def _has_translator(node: ir.Node, opset: int) -> bool:
    """Whether the node's operator has a translator. A translator gives the first output alone: if others are used, an
    operator that the standard defines by others is translated by its body.
    """
    more = any(map(used, node.outputs[1:])) and has_body(node.op_type, opset)
    return not node.domain and node.op_type in TRANSLATORS and not more


def _may_be_translated(node: ir.Node, opset: int) -> bool:
    return node.op_type in SHAPES or translatable(node.op_type, node.domain, opset)


def _leave(translation: Translation, value: ir.Value, layout: str) -> None:
    """Makes ``value`` an output of the file, a tensor of its own in the order of ``layout``."""
    name, program = value.name or "output", translation.program
    array = translation.constant(value)
    if array is not None:
        raise UserError(f"output {name!r} does not depend on the input; remove it from the network's outputs")
    given = translation.values[value]
    rank = len(given.order)
    tensor = translation.arranged(given, standard(rank) if layout == DEFAULT_LAYOUT else tuple(range(rank))).tensor
    if tensor in program.inputs.values() or tensor in program.outputs.values():
        shape = program.integers(f"{name}/shape", tensor.shape)
        tensor = program.emit("RESHAPE", [tensor, shape], tensor.shape, name, newShape=list(tensor.shape))
    tensor.name = name
    program.outputs[name] = tensor


def _check_forms(model: ir.Model, forms: Forms) -> None:
    names = [read_node(node).layer for node in model.graph if is_factorized(node)]
    if unknown := sorted(set(forms) - set(names)):
        raise UserError(f"forms are given for {unknown}, which are no factorized layers; those are {names or 'none'}")


def _check_ranks(program: Program) -> None:
    """Refuses more axes than every runtime takes; a RESHAPE or TRANSPOSE within the network may have more."""
    limits = {tensor: MAX_RANK for operator in program.operators for tensor in operator.outputs}
    for operator in program.operators:
        if operator.code in _MOVES and operator.outputs[0] not in program.outputs.values():
            limits[operator.outputs[0]] = _MOVES[operator.code]
    for tensor, limit in limits.items():
        if len(tensor.shape) > limit:
            raise UnsupportedError(
                f"cannot export to TFLite: {tensor.name!r} has {len(tensor.shape)} axes, more than {limit}; "
                "write it with fewer axes"
            )


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return f"cannot export to TFLite: {problems[0]}"
    return f"cannot export to TFLite, {len(problems)} nodes: " + " | ".join(problems)
