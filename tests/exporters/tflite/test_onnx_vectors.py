"""The ONNX project's own node tests judge the translator: each is right in LiteRT, or refused in one sentence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekron.errors import UserError
from edgekron.exporters.tflite.convert import convert
from edgekron.exporters.tflite.read import read
from edgekron.exporters.tflite.writer import SIGNATURE, pack


def judge(vector: Any) -> str:
    """ "right", "refused", or what is wrong."""
    first = next(iter(vector.inputs.values()))
    try:
        file = pack(convert(ir.serde.deserialize_model(vector.model), batch=first.shape[0] if first.ndim else 1))
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"refused in many lines: {error}"
    contents = read(file)
    if problems := contents.problems():
        return str(problems)
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner(SIGNATURE)
    arrays = {n: x.transpose(contents.inputs[n].order(x.ndim)) for n, x in vector.inputs.items()}
    given = runner(**{name: np.ascontiguousarray(array) for name, array in arrays.items()})
    back = {n: y.transpose(np.argsort(contents.outputs[n].order(y.ndim))) for n, y in given.items()}
    found = (vector.difference(name, back[name]) for name in vector.outputs)
    return next((difference for difference in found if difference), "right")


@pytest.mark.thorough
def test_every_vector_is_right_or_refused(vectors: list[Any]) -> None:
    verdicts = {vector.name: judge(vector) for vector in vectors}
    assert {name: verdict for name, verdict in verdicts.items() if verdict not in {"right", "refused"}} == {}
    counts = Counter(verdicts.values())
    # A change that refuses what was translated before has to say so here.
    assert counts["right"] >= 1298, counts
