"""Compares two versions of a network element by element, end to end and at every value that both know by name.

A version is a hub (run in ONNX Runtime by its model-local functions), an ``.onnx`` file or a ``.tflite`` file.
Exporters keep the names of layers' outputs, so most layers can be compared wherever the error came in. For a
reference r and a candidate c,

    max abs = max |r - c|     relative = max abs / max |r|     SQNR = 10 log10(sum r^2 / sum (r - c)^2) dB
    cosine = <r, c> / (|r| |c|)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.runtimes import backends
from edgekron.runtimes.backends import litert

#: Stop looking for inner values with more elements than this for one image.
LARGEST = 4_000_000


@dataclass(frozen=True)
class Difference:
    """How far the candidate's value ``name`` is from the reference's, over all inputs of one ``case``."""

    name: str
    case: str
    max_abs: float
    relative: float
    sqnr_db: float
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        data = asdict(self)
        data["sqnr_db"] = self.sqnr_db if math.isfinite(self.sqnr_db) else None
        return data


def difference(name: str, case: str, reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """The four measures for two arrays of one shape. Raises ``UserError`` when the shapes differ."""
    if reference.shape != candidate.shape:
        raise UserError(
            f"{name} has shape {list(reference.shape)} in the reference and {list(candidate.shape)} in the candidate; "
            "are these the same network?"
        )
    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    gap = r - c
    top, energy, noise = float(np.abs(r).max(initial=0.0)), float(r @ r), float(gap @ gap)
    worst = float(np.abs(gap).max(initial=0.0))
    norms = math.sqrt(energy) * float(np.linalg.norm(c))
    return Difference(
        name,
        case,
        max_abs=worst,
        # A NaN or an infinite value is no small difference, whatever a maximum makes of it.
        relative=math.inf if not math.isfinite(noise) else worst / top if top else (0.0 if not worst else math.inf),
        sqnr_db=10 * math.log10(energy / noise) if noise and energy else (math.inf if not noise else -math.inf),
        cosine=float(r @ c) / norms if norms else float(energy == float(c @ c)),
    )


class Version(Protocol):
    """A runnable version: its input [C, H, W], the values it can show, and a run for NCHW images."""

    input_shape: tuple[int, ...]
    outputs: list[str]
    inner: list[str]

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]: ...


def open_version(source: Hub | str | Path, *, inner: bool = True) -> Version:
    """A hub, an ``.onnx`` file or a ``.tflite`` file; without ``inner`` it shows its outputs alone, several times as
    fast. Raises ``UserError`` when it cannot be opened.
    """
    if isinstance(source, Hub):
        return _OnnxVersion(source.proto(), inner)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")
    if path.suffix == ".tflite":
        return _TfliteVersion(path, inner)
    if path.suffix != ".onnx":
        raise UserError(f"{path} is neither an .onnx nor a .tflite file; export the model first.")
    try:
        return _OnnxVersion(onnx.load(path), inner)
    except Exception as error:  # noqa: BLE001  protobuf and ONNX Runtime raise many types for damaged files
        raise UserError(f"{path} cannot be opened ({str(error).splitlines()[0]}); export it again.") from None


class _OnnxVersion:
    """ONNX Runtime with every float value of the graph as an output."""

    def __init__(self, proto: onnx.ModelProto, inner: bool) -> None:
        import onnxruntime

        self.outputs = [o.name for o in proto.graph.output]
        self._input = proto.graph.input[0].name
        shape = proto.graph.input[0].type.tensor_type.shape.dim
        self.input_shape = tuple(d.dim_value for d in shape[1:])
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
        self.inner = [n for n in names if known[n].type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
        probe.graph.output.extend(known[name] for name in self.inner)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Optimisations would remove values that are to be shown, and fuse what is to be compared.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._probe = onnxruntime.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        values = {}
        if self.inner:
            values = dict(zip(self.inner, self._probe.run(self.inner, {self._input: x}), strict=True))
        values |= dict(zip(self.outputs, self._plain.run(self.outputs, {self._input: x}), strict=True))
        return values


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
        shape = [int(n) for n in entry["shape"][1:]]
        self.input_shape = tuple(shape[-1:] + shape[:-1]) if len(shape) == 3 else tuple(shape)
        self.outputs = [d["name"] for d in self._inner.get_output_details()]
        made = {int(i) for operator in self._inner._get_ops_details() for i in operator["outputs"]}  # noqa: SLF001
        kept = made if inner else set()
        self._details = [d for d in self._inner.get_tensor_details() if d["index"] in kept and d["dtype"] == np.float32]
        self.inner = [d["name"] for d in self._details]

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(x) if self.inner else 0, self._batch):
            part = x[start : start + self._batch]
            used = len(part)
            if used < self._batch:
                part = np.concatenate([part, np.zeros((self._batch - used, *x.shape[1:]), x.dtype)])
            entry = part.transpose(0, 2, 3, 1) if part.ndim == 4 else part
            self._inner.set_tensor(self._input, np.ascontiguousarray(entry))
            self._inner.invoke()
            for detail in self._details:
                value = self._inner.get_tensor(detail["index"])
                value = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
                # A width fold multiplies the images; such a value belongs to no layer.
                if len(value) == self._batch:
                    found.setdefault(detail["name"], []).append(value[:used])
        values = {name: np.concatenate(parts) for name, parts in found.items()}
        return values | dict(zip(self.outputs, backends.run_nchw(self._session, x), strict=True))


def cases(shape: Sequence[int], images: np.ndarray | None, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Named inputs [N, *shape]: batches of 1, 2 and 3 random images, extreme ones, and real images where given."""
    rng = np.random.default_rng(seed)
    for batch in (1, 2, 3):
        yield f"random, batch {batch}", rng.standard_normal((batch, *shape)).astype(np.float32)
    yield "zeros", np.zeros((1, *shape), np.float32)
    yield "large (x100)", (100 * rng.standard_normal((1, *shape))).astype(np.float32)
    impulse = np.zeros((1, *shape), np.float32)
    impulse[(0, *(n // 2 for n in shape))] = 1.0
    yield "impulse", impulse
    if images is not None:
        yield f"{len(images)} images", images


def compare(
    reference: Version, candidate: Version, inputs: Iterable[tuple[str, np.ndarray]], names: Mapping[str, str]
) -> tuple[list[Difference], list[Difference]]:
    """(end to end: one row a case and output, by layer: one row a value, on the case where it differs most).

    ``names`` maps values to what they are called in the rows, such as a layer's output to the layer. Raises
    ``UserError`` when the versions' inputs or outputs do not match, or an input does not fit them.
    """
    if reference.input_shape != candidate.input_shape:
        raise UserError(
            f"the reference takes {list(reference.input_shape)} and the candidate {list(candidate.input_shape)}; "
            "are these the same network?"
        )
    if not all(n > 0 for n in reference.input_shape):
        raise UserError("the size of the reference's input is open; export it with a fixed height and width.")
    if len(reference.outputs) != len(candidate.outputs):
        counts = len(reference.outputs), len(candidate.outputs)
        raise UserError(f"the reference has {counts[0]} outputs and the candidate {counts[1]}; they must match.")
    ends: list[Difference] = []
    layers: dict[str, Difference] = {}
    for case, x in inputs:
        if x.shape[1:] != tuple(reference.input_shape):
            raise UserError(f"the images are {list(x.shape[1:])}; the network takes {list(reference.input_shape)}.")
        old, new = reference.run(x), candidate.run(x)
        ends += [difference(a, case, old[a], new[b]) for a, b in zip(reference.outputs, candidate.outputs, strict=True)]
        common = [n for n in reference.inner if n in old and n in new and old[n].shape == new[n].shape]
        for name in common:
            row = difference(names.get(name, name), case, old[name], new[name])
            if name not in layers or row.relative > layers[name].relative:
                layers[name] = row
    return ends, list(layers.values())
