"""The inputs of a model file as the network has them: names, types and axes, of ``.onnx`` and ``.tflite`` files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.inputs import NetworkInput, network_inputs
from edgekron.graph.opsets import first_line
from edgekron.runtimes.agent import backends
from edgekron.runtimes.agent.backends.onnxruntime import scales_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.runtimes.agent.backends.session import TensorInfo

_CHANNELS = {"NCHW": 1, "NHWC": 3}


def entries_of(path: str | Path) -> tuple[NetworkInput, ...]:
    """The inputs of a file. Raises ``UserError`` or ``RuntimeFailure`` for a file that cannot be read."""
    path = Path(path)
    if path.suffix.lower() == ".tflite":
        session = backends.load(path)
        try:
            return entries_of_session([session.input])
        finally:
            session.close()
    try:
        return entries_of_proto(onnx.load(path, load_external_data=False), str(path))
    except Exception as error:  # noqa: BLE001  protobuf and ONNX raise many types for damaged files
        raise UserError(f"{path} cannot be opened ({first_line(error)}); export it again.") from None


def entries_of_proto(proto: onnx.ModelProto, title: str) -> tuple[NetworkInput, ...]:
    """The inputs of an ONNX file; integers that stand for real numbers are float32, as the network has them."""
    scales = scales_of(title, {entry.key: entry.value for entry in proto.metadata_props})
    inputs = network_inputs(ir.serde.deserialize_model(proto))
    return tuple(replace(entry, dtype="float32") if entry.name in scales else entry for entry in inputs)


def entries_of_session(inputs: Sequence[TensorInfo]) -> tuple[NetworkInput, ...]:
    """The inputs of an open file."""
    return tuple(map(_entry, inputs))


def _entry(given: TensorInfo) -> NetworkInput:
    shape = [0 if size is None else size for size in given.shape]
    seen = given.from_file(np.empty(shape, np.bool_)).shape
    dtype = given.dtype if given.quantization is None else "float32"
    return NetworkInput(given.name, dtype, tuple(seen[1:]), _CHANNELS.get(given.network))
