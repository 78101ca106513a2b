"""The versions of a network that can be run and looked into: a hub, an ``.onnx`` file, a ``.tflite`` file.

Whatever a file stores, its values come back as float32 with the axes that they have in the network: integers are
converted by their own scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx

from edgekron.errors import UserError
from edgekron.exporters.entries import entries_of_proto, entries_of_session
from edgekron.exporters.tflite.outline import outline
from edgekron.exporters.tflite.read import identity_of, read
from edgekron.graph import Hub, NetworkInput
from edgekron.graph.from_onnx import MARK
from edgekron.graph.identity import IDENTITY_KEY, Identity
from edgekron.graph.parts import JoinedOutput, joined_in_file, joined_outputs
from edgekron.runtimes.agent import backends
from edgekron.runtimes.agent.backends import litert
from edgekron.runtimes.agent.backends.onnxruntime import scales_of
from edgekron.runtimes.agent.backends.session import TensorInfo, to_integers, to_real

if TYPE_CHECKING:
    import onnxruntime

#: Stop looking for inner values with more elements than this for one image.
LARGEST = 4_000_000


class Version(Protocol):
    """A runnable version: its inputs, the values it can show, and a run for inputs with the axes of the network.

    ``precision`` is that of its coarsest weights or activations: "float32", "float16" or "int8"; ``kind`` is "torch",
    "hub", "onnx" or "tflite"; ``identity`` is that of the network, None where the file states none. ``joined`` has the
    outputs that are joined from parts, by name.
    """

    input_shape: tuple[int, ...]
    inputs: tuple[NetworkInput, ...]
    outputs: list[str]
    inner: list[str]
    precision: str
    kind: str
    identity: Identity | None

    @property
    def joined(self) -> Mapping[str, JoinedOutput]: ...

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs, computed as users compute them."""

    def look(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The values ``inner``, all from one run by plain kernels: each follows from those before it."""


def open_version(source: Hub | str | Path, *, inner: bool = True) -> Version:
    """A hub, an ``.onnx`` file or a ``.tflite`` file; without ``inner`` it shows its outputs alone, several times as
    fast. Raises ``UserError`` when it cannot be opened.
    """
    if isinstance(source, Hub):
        return OnnxVersion(source.proto(), inner, "the hub")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")
    if path.suffix == ".tflite":
        return _TfliteVersion(path, inner)
    if path.suffix != ".onnx":
        raise UserError(f"{path} is neither an .onnx nor a .tflite file; export the model first.")
    try:
        return OnnxVersion(onnx.load(path), inner, str(path))
    except Exception as error:  # noqa: BLE001  protobuf and ONNX Runtime raise many types for damaged files
        raise UserError(f"{path} cannot be opened ({str(error).splitlines()[0]}); export it again.") from None


class OnnxVersion:
    """ONNX Runtime with every float value of the graph as an output.

    ``proto`` is the file; ``batch`` is the number of images that it takes, 0 for any.

    A value that is quantized is shown as what its integers stand for, by its own name.
    """

    def __init__(self, proto: onnx.ModelProto, inner: bool, title: str) -> None:
        import onnxruntime

        self.proto = proto
        props = {entry.key: entry.value for entry in proto.metadata_props}
        self.kind, self.identity = "hub" if MARK in props else "onnx", Identity.from_text(props.get(IDENTITY_KEY))
        self.outputs = [o.name for o in proto.graph.output]
        self._input = proto.graph.input[0].name
        self._dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.graph.input[0].type.tensor_type.elem_type)
        self._scales = scales_of(title, props)
        self.precision = _precision(proto)
        shape = proto.graph.input[0].type.tensor_type.shape.dim
        self.inputs = entries_of_proto(proto, title)
        self.input_shape = self.inputs[0].shape
        # 0 where any number of images will do.
        self.batch = shape[0].dim_value if shape else 0
        # The outputs themselves are compared as users run them.
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 3
        self._plain = onnxruntime.InferenceSession(proto.SerializeToString(), plain, ["CPUExecutionProvider"])
        self.inner = []
        if not inner:
            return
        inferred = onnx.shape_inference.infer_shapes(proto)
        known = {v.name: v for v in inferred.graph.value_info if _elements(v) <= LARGEST}
        names = [name for node in proto.graph.node for name in node.output if name in known]
        probe = onnx.ModelProto()
        probe.CopyFrom(proto)
        # Float values only: shapes and indices are no layer's output.
        self._probed = [name for name in names if _is_float(known[name])]
        probe.graph.output.extend(known[name] for name in self._probed)
        self._probed += [o.name for o in proto.graph.output if _is_float(o) or o.name in self._scales]
        self.inner = list(dict.fromkeys(map(_plain_name, self._probed)))
        self._probe = plain_session(probe)

    @cached_property
    def joined(self) -> Mapping[str, JoinedOutput]:
        """The joined outputs of the graph."""
        return joined_in_file(self.proto)

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs, by a session with all optimisations."""
        return self._in_batches(x, self._run)

    def look(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """Every float value, by a session without any."""
        return self._in_batches(x, self._look) if self.inner else {}

    def _in_batches(self, x: np.ndarray, run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        if self.batch in (0, len(x)):
            return run(x)
        parts = []
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            filled = np.concatenate([part, np.zeros((self.batch - len(part), *x.shape[1:]), x.dtype)])
            values = run(filled)
            parts.append({name: v[: len(part)] for name, v in values.items() if v.shape[:1] == (self.batch,)})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return self._real(self.outputs, self._plain.run(self.outputs, self._feed(x)))

    def _look(self, x: np.ndarray) -> dict[str, np.ndarray]:
        values = self._real(self._probed, self._probe.run(self._probed, self._feed(x)))
        # What its integers stand for goes ahead of the value that was quantized.
        return values | {_plain_name(name): values.pop(name) for name in self._probed if _plain_name(name) != name}

    def _feed(self, x: np.ndarray) -> dict[str, np.ndarray]:
        integers = self._input in self._scales
        return {self._input: to_integers(x, self._dtype, self._scales[self._input]) if integers else x}

    def _real(self, names: list[str], values: list[np.ndarray]) -> dict[str, np.ndarray]:
        pairs = zip(names, values, strict=True)
        return {name: to_real(y, self._scales[name]) if name in self._scales else y for name, y in pairs}


def plain_session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Runs the graph as it is: optimisations would remove values that are to be shown, and fuse what is compared."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])


def _precision(proto: onnx.ModelProto) -> str:
    types = {tensor.data_type for tensor in proto.graph.initializer}
    if onnx.TensorProto.INT8 in types:
        return "int8"
    return "float16" if onnx.TensorProto.FLOAT16 in types else "float32"


def _plain_name(name: str) -> str:
    """The name of a value whose integers are dequantized under the name that ONNX Runtime's quantizer gives them."""
    return name.removesuffix("_DequantizeLinear_Output")


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _elements(value: onnx.ValueInfoProto) -> int:
    return math.prod(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)


class _TfliteVersion:
    """LiteRT: the outputs as users run them, inner values by the plain kernels, whose buffers stay readable.

    Inputs and outputs have the axes of the network, inner values with four axes come back as NCHW.
    """

    kind = "tflite"

    def __init__(self, path: Path, inner: bool) -> None:
        self._path = path
        self._session = backends.load(path)
        self.identity = identity_of(path.read_bytes())
        module = litert.import_runtime()
        self._inner = module.Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self._inner.allocate_tensors()
        (entry,) = self._inner.get_input_details()
        self._input, self._batch = entry["index"], int(entry["shape"][0])
        self._dtype, self._scale = np.dtype(entry["dtype"]), _scale(entry)
        self.inputs = entries_of_session([self._session.input])
        self.input_shape = self.inputs[0].shape
        self.outputs = [d["name"] for d in self._inner.get_output_details()]
        self._ends = dict(zip(self.outputs, self._session.outputs, strict=True))
        made = {int(i) for operator in self._inner._get_ops_details() for i in operator["outputs"]}  # noqa: SLF001
        details = self._inner.get_tensor_details()
        self.precision = _tflite_precision({np.dtype(d["dtype"]).name for d in details})
        kept = made if inner else set()
        self._details = [d for d in details if d["index"] in kept and (d["dtype"] == np.float32 or _scale(d))]
        self.inner = [d["name"] for d in self._details]

    @cached_property
    def joined(self) -> Mapping[str, JoinedOutput]:
        """The joined outputs of the file, as NCHW."""
        return joined_outputs(outline(read(self._path.read_bytes()), channels_first=True))

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs, by the delegate that users get."""
        return dict(zip(self.outputs, backends.run_nchw(self._session, x), strict=True))

    def look(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """Every float or quantized value, by the plain kernels."""
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(x) if self.inner else 0, self._batch):
            part = x[start : start + self._batch]
            used = len(part)
            if used < self._batch:
                part = np.concatenate([part, np.zeros((self._batch - used, *x.shape[1:]), x.dtype)])
            entry = self._session.input.to_file(part)
            if self._scale:
                entry = to_integers(entry, self._dtype, self._scale)
            self._inner.set_tensor(self._input, np.ascontiguousarray(entry))
            self._inner.invoke()
            for detail in self._details:
                value = self._inner.get_tensor(detail["index"])
                if scale := _scale(detail):
                    value = to_real(value, scale)
                end = self._ends.get(detail["name"], _INNER)
                value = end.from_file(value) if value.ndim == 4 else value
                # A width fold multiplies the images; such a value belongs to no layer.
                if len(value) == self._batch:
                    found.setdefault(detail["name"], []).append(value[:used])
        return {name: np.concatenate(parts) for name, parts in found.items()}


#: Values within a file with four axes.
_INNER = TensorInfo("", (None,) * 4, "float32", "NHWC")


def _scale(detail: Mapping[str, Any]) -> tuple[float, int] | None:
    """(scale, zero point) of an integer tensor that stands for real numbers by one scale."""
    scale, zero = detail["quantization"]
    return (float(scale), int(zero)) if scale and np.dtype(detail["dtype"]).kind in "iu" else None


def _tflite_precision(types: set[str]) -> str:
    return next((name for name in ("int8", "float16") if name in types), "float32")
