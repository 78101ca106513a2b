"""The versions of a network that can be run and looked into: a hub, an ``.onnx`` file, a ``.tflite`` file.

Whatever a file stores, its values come back as float32, images [N, C, H, W]: integers are converted by their own scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.runtimes import backends
from edgekron.runtimes.backends import litert
from edgekron.runtimes.backends.onnxruntime import scales_of
from edgekron.runtimes.backends.session import to_integers, to_real

#: Stop looking for inner values with more elements than this for one image.
LARGEST = 4_000_000


class Version(Protocol):
    """A runnable version: its input [C, H, W], the values it can show, and a run for NCHW images.

    ``precision`` is that of its coarsest weights or activations: "float32", "float16" or "int8".
    """

    input_shape: tuple[int, ...]
    outputs: list[str]
    inner: list[str]
    precision: str

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]: ...


def open_version(source: Hub | str | Path, *, inner: bool = True) -> Version:
    """A hub, an ``.onnx`` file or a ``.tflite`` file; without ``inner`` it shows its outputs alone, several times as
    fast. Raises ``UserError`` when it cannot be opened.
    """
    if isinstance(source, Hub):
        return _OnnxVersion(source.proto(), inner, "the hub")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")
    if path.suffix == ".tflite":
        return _TfliteVersion(path, inner)
    if path.suffix != ".onnx":
        raise UserError(f"{path} is neither an .onnx nor a .tflite file; export the model first.")
    try:
        return _OnnxVersion(onnx.load(path), inner, str(path))
    except Exception as error:  # noqa: BLE001  protobuf and ONNX Runtime raise many types for damaged files
        raise UserError(f"{path} cannot be opened ({str(error).splitlines()[0]}); export it again.") from None


class _OnnxVersion:
    """ONNX Runtime with every float value of the graph as an output.

    A value that is quantized is shown as what its integers stand for, by its own name.
    """

    def __init__(self, proto: onnx.ModelProto, inner: bool, title: str) -> None:
        import onnxruntime

        self.outputs = [o.name for o in proto.graph.output]
        self._input = proto.graph.input[0].name
        self._dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.graph.input[0].type.tensor_type.elem_type)
        self._scales = scales_of(title, {entry.key: entry.value for entry in proto.metadata_props})
        self.precision = _precision(proto)
        shape = proto.graph.input[0].type.tensor_type.shape.dim
        self.input_shape = tuple(d.dim_value for d in shape[1:])
        # 0 where any number of images will do.
        self._batch = shape[0].dim_value if shape else 0
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
        self._probed = [n for n in names if known[n].type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
        self.inner = list(dict.fromkeys(map(_plain_name, self._probed)))
        probe.graph.output.extend(known[name] for name in self._probed)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Optimisations would remove values that are to be shown, and fuse what is to be compared.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._probe = onnxruntime.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        if self._batch in (0, len(x)):
            return self._run(x)
        parts = []
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            filled = np.concatenate([part, np.zeros((self._batch - len(part), *x.shape[1:]), x.dtype)])
            values = self._run(filled)
            parts.append({name: v[: len(part)] for name, v in values.items() if v.shape[:1] == (self._batch,)})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        if self._input in self._scales:
            x = to_integers(x, self._dtype, self._scales[self._input])
        if self.inner:
            values = dict(zip(self._probed, self._probe.run(self._probed, {self._input: x}), strict=True))
            values |= {_plain_name(name): values.pop(name) for name in self._probed if _plain_name(name) != name}
        ends = dict(zip(self.outputs, self._plain.run(self.outputs, {self._input: x}), strict=True))
        return values | {n: to_real(y, self._scales[n]) if n in self._scales else y for n, y in ends.items()}


def _precision(proto: onnx.ModelProto) -> str:
    types = {tensor.data_type for tensor in proto.graph.initializer}
    if onnx.TensorProto.INT8 in types:
        return "int8"
    return "float16" if onnx.TensorProto.FLOAT16 in types else "float32"


def _plain_name(name: str) -> str:
    """The name of a value whose integers are dequantized under the name that ONNX Runtime's quantizer gives them."""
    return name.removesuffix("_DequantizeLinear_Output")


def _elements(value: onnx.ValueInfoProto) -> int:
    return math.prod(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)


class _TfliteVersion:
    """LiteRT: the outputs as users run them, inner values by the plain kernels, whose buffers stay readable.

    Four-dimensional values come back as NCHW.
    """

    def __init__(self, path: Path, inner: bool) -> None:
        self._session = backends.load(path)
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
        shape = [int(n) for n in entry["shape"][1:]]
        self.input_shape = tuple(shape[-1:] + shape[:-1]) if len(shape) == 3 else tuple(shape)
        self.outputs = [d["name"] for d in self._inner.get_output_details()]
        made = {int(i) for operator in self._inner._get_ops_details() for i in operator["outputs"]}  # noqa: SLF001
        details = self._inner.get_tensor_details()
        self.precision = _tflite_precision({np.dtype(d["dtype"]).name for d in details})
        kept = made if inner else set()
        self._details = [d for d in details if d["index"] in kept and (d["dtype"] == np.float32 or _scale(d))]
        self.inner = [d["name"] for d in self._details]

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(x) if self.inner else 0, self._batch):
            part = x[start : start + self._batch]
            used = len(part)
            if used < self._batch:
                part = np.concatenate([part, np.zeros((self._batch - used, *x.shape[1:]), x.dtype)])
            entry = part.transpose(0, 2, 3, 1) if part.ndim == 4 else part
            if self._scale:
                entry = to_integers(entry, self._dtype, self._scale)
            self._inner.set_tensor(self._input, np.ascontiguousarray(entry))
            self._inner.invoke()
            for detail in self._details:
                value = self._inner.get_tensor(detail["index"])
                if scale := _scale(detail):
                    value = to_real(value, scale)
                value = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
                # A width fold multiplies the images; such a value belongs to no layer.
                if len(value) == self._batch:
                    found.setdefault(detail["name"], []).append(value[:used])
        values = {name: np.concatenate(parts) for name, parts in found.items()}
        return values | dict(zip(self.outputs, backends.run_nchw(self._session, x), strict=True))


def _scale(detail: Mapping[str, Any]) -> tuple[float, int] | None:
    """(scale, zero point) of an integer tensor that stands for real numbers by one scale."""
    scale, zero = detail["quantization"]
    return (float(scale), int(zero)) if scale and np.dtype(detail["dtype"]).kind in "iu" else None


def _tflite_precision(types: set[str]) -> str:
    return next((name for name in ("int8", "float16") if name in types), "float32")
