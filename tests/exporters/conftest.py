"""The ONNX project's own node tests as data: networks of constants and few inputs, with what they should give."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekron.exporters.tflite.functions import translatable

#: Operators of shapes and constants, which are computed before anything is translated.
FOLDED = {"Constant", "ConstantOfShape", "Shape", "Size", "Range"}


@dataclass(frozen=True)
class Vector:
    """One case: a model whose graph inputs are ``inputs`` alone, and what each of its outputs should be."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    relative: float
    absolute: float

    def difference(self, name: str, actual: np.ndarray) -> str | None:
        """What is wrong with an output: its shape, its kind of type, or a value beyond the case's own tolerance."""
        wanted = self.outputs[name]
        if actual.shape != wanted.shape or actual.dtype.kind != wanted.dtype.kind:
            return f"{name}: {actual.dtype}{actual.shape}, not {wanted.dtype}{wanted.shape}"
        # The smallest absolute tolerances are below one rounding of a sum of float32 values near one.
        if np.allclose(actual, wanted, rtol=self.relative, atol=max(self.absolute, 1e-6), equal_nan=True):
            return None
        return f"{name}: off by {np.nanmax(np.abs(actual.astype(float) - wanted.astype(float)))}"


def _vectors() -> Iterator[Vector]:
    """Each case twice: its first float32 input alone as the network's, all others constant as parameters are; and every
    float32 input as the network's.
    """
    from onnx.backend.test.loader import load_node_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_node_model_tests()
    for case in cases:
        opset = {entry.domain: entry.version for entry in case.model.opset_import}.get("", 0)
        nodes, (inputs, outputs) = case.model.graph.node, case.data_sets[0]
        if not opset or not all(n.op_type in FOLDED or translatable(n.op_type, n.domain, opset) for n in nodes):
            continue
        if not all(isinstance(array, np.ndarray | np.generic) for array in (*inputs, *outputs)):
            continue
        arrays = {value.name: np.asarray(a) for value, a in zip(case.model.graph.input, inputs, strict=True)}
        floats = [name for name, array in arrays.items() if array.dtype == np.float32]
        for data in dict.fromkeys((tuple(floats[:1]), tuple(floats))):
            if data:
                yield Vector(
                    case.name + (f", {len(data)} inputs" if len(data) > 1 else ""),
                    nodes[-1].op_type,
                    _with_constants(case.model, arrays, set(data)),
                    {name: arrays[name] for name in data},
                    {v.name: np.asarray(a) for v, a in zip(case.model.graph.output, outputs, strict=True)},
                    case.rtol,
                    case.atol,
                )


def _with_constants(model: onnx.ModelProto, arrays: dict[str, np.ndarray], data: set[str]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.input[:]
    made.graph.input.extend(value for value in model.graph.input if value.name in data)
    constants = {name: array for name, array in arrays.items() if name not in data}
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return made


@pytest.fixture(scope="session")
def vectors() -> list[Vector]:
    """Every node test of the ONNX project whose operators the TFLite exporter translates."""
    return list(_vectors())
