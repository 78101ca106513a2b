"""The ONNX project's own node tests as networks of one input, through the hub to ONNX and to TFLite files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub, load


def run(model: onnx.ModelProto, names: Sequence[str], x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), {model.graph.input[0].name: x})


def runs_as_it_is(vector: Any, x: np.ndarray) -> bool:
    """Whether ONNX Runtime itself does what the case says: it lacks some operators, and has its own view of others."""
    try:
        outputs = run(vector.model, list(vector.outputs), x)
    except Exception:  # noqa: BLE001  its errors have no common class
        return False
    return not any(vector.difference(name, y) for name, y in zip(vector.outputs, outputs, strict=True))


def run_onnx(hub: Hub, x: np.ndarray) -> list[np.ndarray]:
    return run(export_onnx(hub), hub.output_names, x)


def run_tflite(hub: Hub, x: np.ndarray) -> list[np.ndarray]:
    data = export_tflite(hub, batch=len(x), layout="nchw")
    found = Interpreter(model_content=data, num_threads=1).get_signature_runner("serving_default")(
        **{hub.input_name: x}
    )
    return [found[name] for name in hub.output_names]


def judge(vector: Any, folder: Path) -> dict[str, str]:
    """For each way out of the hub: "right", "refused", "not judged" or what is wrong."""
    ((_, x),) = vector.inputs.items()
    path = folder / "case.onnx"
    onnx.save(vector.model, path)
    try:
        hub = load(path)
    except UserError as error:
        return {"hub": _refused(error)}
    return {
        "onnx": _verdict(vector, hub, x, run_onnx) if runs_as_it_is(vector, x) else "not judged",
        "tflite": _verdict(vector, hub, x, run_tflite),
    }


def _verdict(vector: Any, hub: Hub, x: np.ndarray, way: Callable[[Hub, np.ndarray], list[np.ndarray]]) -> str:
    try:
        outputs = way(hub, x)
    except UserError as error:
        return _refused(error)
    found = (vector.difference(name, y) for name, y in zip(hub.output_names, outputs, strict=True))
    return next((difference for difference in found if difference), "right")


def _refused(error: UserError) -> str:
    return "refused" if "\n" not in str(error) else f"refused in many lines: {error}"


def check(vectors: list[Any], folder: Path) -> Counter[tuple[str, str]]:
    """Asserts that every verdict is "right", "refused" or "not judged", and counts them."""
    verdicts = {vector.name: judge(vector, folder) for vector in vectors if len(vector.inputs) == 1}
    wrong = {
        (name, way): verdict
        for name, ways in verdicts.items()
        for way, verdict in ways.items()
        if verdict not in {"right", "refused", "not judged"}
    }
    assert wrong == {}
    return Counter(pair for ways in verdicts.values() for pair in ways.items())


def test_a_sample_of_vectors(vectors: list[Any], tmp_path: Path) -> None:
    counts = check(vectors[::25], tmp_path)
    assert counts["onnx", "right"] >= 15
    assert counts["tflite", "right"] >= 15


@pytest.mark.thorough
def test_every_vector(vectors: list[Any], tmp_path: Path) -> None:
    counts = check(vectors, tmp_path)
    assert counts["onnx", "right"] >= 400
    assert counts["tflite", "right"] >= 400
