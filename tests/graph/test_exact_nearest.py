"""Nearest resizes read the pixels that torch reads, where ONNX Runtime's own rounding would miss them."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import load


class Resized(nn.Module):
    """Nearest to a size."""

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, self.size, mode="nearest")


@pytest.mark.parametrize(
    ("before", "after", "operators"),
    [
        ((14, 7), (2, 1), ["Gather", "Gather"]),
        ((14, 5), (4, 5), ["Gather"]),
        ((14, 14), (4, 8), ["Gather", "Gather"]),
        ((7, 6), (14, 10), ["Resize"]),
        ((14, 8), (7, 4), ["Resize"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_pixels_are_the_right_ones(before: tuple[int, int], after: tuple[int, int], operators: list[str]) -> None:
    x = torch.arange(2.0 * before[0] * before[1]).reshape(1, 2, *before)
    hub = load(Resized(*after), input_shape=(2, *before))
    assert [node.op_type for node in hub.model.graph if node.op_type in ("Gather", "Resize")] == operators
    expected = nn.functional.interpolate(x, after, mode="nearest").numpy()
    session = onnxruntime.InferenceSession(export_onnx(hub).SerializeToString(), providers=["CPUExecutionProvider"])
    assert (session.run(None, {hub.input_name: x.numpy()})[0] == expected).all()
    runner = Interpreter(model_content=export_tflite(hub, layout="nchw")).get_signature_runner("serving_default")
    (lite,) = runner(**{hub.input_name: x.numpy()}).values()
    assert (lite == expected).all()
