"""From a program to the bytes of a TFLite file (a flatbuffer, identifier ``TFL3``).

Buffer 0 is empty, as readers expect; equal constants share one buffer; every buffer begins at a multiple of 16 bytes,
so that a microcontroller can read the buffer in place. Tensor names are unique. One signature, ``serving_default``,
maps the names of the inputs and outputs. The same program always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version as package_version

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekron.graph.identity import Identity
from edgekron.runtimes.agent.backends.stated_axes import AXES

from .program import Operator, Program, Tensor, type_name
from .versions import version

SIGNATURE = "serving_default"
#: Names of the metadata: which EdgeKron wrote the file, and the SHA-256 of the plan of a compressed network.
METADATA, IDENTITY_METADATA = "edgekron_version", "edgekron_identity"
_ALIGNMENT = 16
#: Bytes of a file beside its weights: a guess of the room that a builder needs; the builder grows if it is too small.
_PER_BUFFER, _BESIDE = 1024, 65_536
_SCHEMA_VERSION = 3

#: The options table of each operator that has one.
_OPTIONS = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "ARG_MIN": "ArgMinOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "POW": "PowOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE": "TransposeOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}

#: Option fields that the schema numbers and a program names.
_ENUMERATIONS = {
    "fusedActivationFunction": schema.ActivationFunctionType,
    "padding": schema.Padding,
    "mode": schema.MirrorPadMode,
    "inDataType": schema.TensorType,
    "outDataType": schema.TensorType,
    "outputType": schema.TensorType,
}


class _AlignedBuffer:
    """A ``schema.BufferT`` whose bytes are aligned; the generated code aligns them to one byte."""

    def __init__(self, data: np.ndarray | None = None) -> None:
        self.data = data

    def pack(self, builder: flatbuffers.Builder) -> int:
        """Writes the buffer and returns its offset."""
        vector = None
        if self.data is not None:
            data = self.data
            builder.StartVector(1, data.size, _ALIGNMENT)
            builder.head = head = builder.head - data.size
            builder.Bytes[head : head + data.size] = data.tobytes()
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)

    #: The name by which the generated code calls it.
    Pack = pack


class _Tables:
    """The file's shared tables: buffers without duplicates, tensors, operator codes."""

    def __init__(self) -> None:
        self.buffers = [_AlignedBuffer()]
        self.tensors: list[schema.TensorT] = []
        self.codes: list[schema.OperatorCodeT] = []
        self._buffer_index: dict[bytes, int] = {}
        self._tensor_index: dict[Tensor, int] = {}
        self._code_index: dict[tuple[str, int], int] = {}
        self._names: set[str] = set()

    def buffer(self, array: np.ndarray) -> int:
        """The index of the buffer with these values; a digest tells buffers apart, so that no values are kept twice."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = hashlib.sha256(data.data).digest()
        if key not in self._buffer_index:
            self._buffer_index[key] = len(self.buffers)
            self.buffers.append(_AlignedBuffer(data=data))
        return self._buffer_index[key]

    def tensor(self, tensor: Tensor) -> int:
        if tensor not in self._tensor_index:
            entry = schema.TensorT()
            entry.name = self._unique(tensor.name)
            entry.shape = list(tensor.shape)
            entry.hasRank = True
            entry.type = getattr(schema.TensorType, type_name(tensor.dtype))
            entry.buffer = 0 if tensor.data is None else self.buffer(tensor.data)
            self._tensor_index[tensor] = len(self.tensors)
            self.tensors.append(entry)
        return self._tensor_index[tensor]

    def code(self, operator: Operator) -> int:
        key = (operator.code, version(operator))
        if key not in self._code_index:
            entry = schema.OperatorCodeT()
            entry.builtinCode = getattr(schema.BuiltinOperator, operator.code)
            # Readers older than the 32-bit field look at this one; 127 says "look at the other".
            entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
            entry.version = key[1]
            self._code_index[key] = len(self.codes)
            self.codes.append(entry)
        return self._code_index[key]

    def _unique(self, name: str) -> str:
        unique, copy = name, 1
        while unique in self._names:
            unique, copy = f"{name}.{copy}", copy + 1
        self._names.add(unique)
        return unique


def pack(program: Program, description: str = "", identity: Identity | None = None) -> bytes:
    """The bytes of the TFLite file of ``program``; ``identity`` is that of the network."""
    tables = _Tables()
    graph = schema.SubGraphT()
    graph.name = "main"
    # Inputs and outputs first: they keep their names where an inner tensor has the same.
    graph.inputs = [tables.tensor(t) for t in program.inputs.values()]
    graph.outputs = [tables.tensor(t) for t in program.outputs.values()]
    graph.operators = [_operator(tables, operator) for operator in program.operators]
    graph.tensors = tables.tensors

    said = {METADATA: package_version("edgekron"), **({IDENTITY_METADATA: identity.to_text()} if identity else {})}
    if program.axes:
        ends = {"inputs": program.inputs, "outputs": program.outputs}
        said[AXES] = json.dumps({end: [program.axes.get(name) for name in names] for end, names in ends.items()})
    model = schema.ModelT()
    model.version = _SCHEMA_VERSION
    model.description = description
    model.subgraphs = [graph]
    model.operatorCodes = tables.codes
    model.signatureDefs = [_signature(program, graph)]
    model.metadata = [_metadata(tables, name, text) for name, text in said.items()]
    model.buffers = tables.buffers

    return _finish(model)


def repack(model: schema.ModelT) -> bytes:
    """The bytes of a file whose tables (``schema.ModelT``) another tool made: all buffers inside, aligned."""
    arrays = [None if b.data is None else np.frombuffer(b.data, np.uint8) for b in model.buffers]
    model.buffers = [_AlignedBuffer(data=array) for array in arrays]
    return _finish(model)


def _finish(model: schema.ModelT) -> bytes:
    # Room for everything at once: a builder that grows holds what it has twice.
    weights = sum(buffer.data.size for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(weights + _PER_BUFFER * len(model.buffers) + _BESIDE)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _operator(tables: _Tables, operator: Operator) -> schema.OperatorT:
    entry = schema.OperatorT()
    entry.opcodeIndex = tables.code(operator)
    entry.inputs = [tables.tensor(t) for t in operator.inputs]
    entry.outputs = [tables.tensor(t) for t in operator.outputs]
    table = _OPTIONS.get(operator.code)
    if table is None:
        if operator.options:
            raise AssertionError(f"{operator.code} has no options table for {operator.options}")
        return entry
    entry.builtinOptionsType = getattr(schema.BuiltinOptions, table)
    entry.builtinOptions = getattr(schema, f"{table}T")()
    for key, value in operator.options.items():
        if not hasattr(entry.builtinOptions, key):
            raise AssertionError(f"{table} has no field {key}")
        setattr(entry.builtinOptions, key, getattr(_ENUMERATIONS[key], str(value)) if key in _ENUMERATIONS else value)
    return entry


def _metadata(tables: _Tables, name: str, text: str) -> schema.MetadataT:
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, tables.buffer(np.frombuffer(text.encode(), np.uint8))
    return entry


def _signature(program: Program, graph: schema.SubGraphT) -> schema.SignatureDefT:
    def maps(names: Iterable[str], indices: list[int]) -> list[schema.TensorMapT]:
        entries = []
        for name, index in zip(names, indices, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            entries.append(entry)
        return entries

    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = maps(program.inputs, graph.inputs)
    signature.outputs = maps(program.outputs, graph.outputs)
    return signature
