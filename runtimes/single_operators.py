"""Cuts a TFLite file into files of one operator each: LiteRT has no clock for its operators, but it can run them alone.

Every operator keeps its constants, its options and its quantization. Of several activations that enter an operator, the
first becomes the file's input and the others random constants, because only files of one input are measured. Operators
that are equal but for the values of their weights take the same time, so they share one file.

A lone operator finds its input in the cache, and pays for entering and leaving the runtime, which the whole network
pays once. These times are shares, not a sum: the whole is what ``bench`` says.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from types import ModuleType

    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, TensorT

#: Constants up to this many bytes are settings (a shape, a permutation), which make operators differ.
_SETTING = 64
_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class SingleOperator:
    """One operator of a file: its kind, the names of its constants and outputs, and the file that runs it alone.

    ``alone`` is None for an operator that no activation enters, or that calls another part of the file.
    """

    index: int
    kind: str
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    alone: Path | None


def cut(file: str | Path, folder: Path) -> list[SingleOperator]:
    """Writes the files into ``folder``, gives the operators in their order; ``RuntimeFailure`` for no TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(bytearray(Path(file).read_bytes()), 0)
        (graph,) = model.subgraphs
    except OSError as error:
        raise RuntimeFailure(f"{file} cannot be read ({error.strerror}); check the path.") from None
    except Exception as error:  # noqa: BLE001 - the generated reader has no exceptions of its own
        raise RuntimeFailure(
            f"{file} cannot be cut into its operators ({error}); it is no plain TFLite file."
        ) from None
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    found = []
    for index, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        inputs = [i for i in operator.inputs if i >= 0]
        constants = tuple(_name(graph.tensors[i]) for i in inputs if _constant(model, graph.tensors[i]))
        found.append(
            SingleOperator(
                index=index,
                kind=kinds.get(number, f"operator {number}"),
                constants=constants,
                outputs=tuple(_name(graph.tensors[i]) for i in operator.outputs),
                alone=_write(schema, model, operator, folder),
            )
        )
    return found


def _write(schema: ModuleType, model: ModelT, operator: OperatorT, folder: Path) -> Path | None:
    """The file of one operator, which an equal one may have written before."""
    graph = model.subgraphs[0]
    used = list(dict.fromkeys(i for i in [*operator.inputs, *operator.outputs] if i >= 0))
    place = {old: new for new, old in enumerate(used)}
    entering = [i for i in operator.inputs if i >= 0 and not _constant(model, graph.tensors[i])]
    if not entering or any(name in str(type(operator.builtinOptions)) for name in ("While", "If", "Call")):
        return None
    alone, one, moved = schema.ModelT(), schema.SubGraphT(), copy.copy(operator)
    alone.version, alone.subgraphs, alone.buffers = 3, [one], [schema.BufferT()]
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    one.tensors = []
    for old in used:
        tensor = copy.copy(graph.tensors[old])
        data = None
        if _constant(model, tensor):
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
        elif old in entering[1:]:
            data = _random(schema, tensor)
            if data is None:
                return None
        tensor.name, tensor.buffer = f"t{place[old]}", 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data
            alone.buffers.append(buffer)
            tensor.buffer = len(alone.buffers) - 1
        one.tensors.append(tensor)
    moved.opcodeIndex = 0
    moved.inputs = [place.get(i, -1) for i in operator.inputs]
    moved.outputs = [place[i] for i in operator.outputs]
    one.inputs, one.outputs, one.operators = [place[entering[0]]], list(moved.outputs), [moved]
    path = folder / f"{hashlib.sha256(_pack(_without_weights(alone))).hexdigest()[:16]}.tflite"
    if not path.exists():
        path.write_bytes(_pack(alone))
    return path


def _without_weights(model: ModelT) -> ModelT:
    """The model with its large constants as zeros: what tells equal operators from others."""
    plain = copy.copy(model)
    plain.buffers = []
    for buffer in model.buffers:
        kept = copy.copy(buffer)
        if buffer.data is not None and len(buffer.data) > _SETTING:
            kept.data = np.zeros(len(buffer.data), np.uint8)
        plain.buffers.append(kept)
    return plain


def _pack(model: ModelT) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _constant(model: ModelT, tensor: TensorT) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _random(schema: ModuleType, tensor: TensorT) -> np.ndarray | None:
    """The bytes of a random tensor; None for a type that is neither float nor integer of 8 bits."""
    random, shape = np.random.default_rng(0), tuple(_shape(tensor.shape))
    if tensor.type == schema.TensorType.FLOAT32:
        data = random.standard_normal(shape).astype(np.float32).tobytes()
    elif tensor.type == schema.TensorType.INT8:
        data = random.integers(-128, 127, shape, dtype=np.int8, endpoint=True).tobytes()
    else:
        return None
    return np.frombuffer(data, np.uint8)


def _shape(shape: Sequence[int] | None) -> list[int]:
    return [] if shape is None else [int(size) for size in shape]


def _name(tensor: TensorT) -> str:
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
