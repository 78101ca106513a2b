"""Pools that round up have the windows that torch gives them, and whatever follows sees the right size."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import load

#: Drop a window along the height, and along the width reach behind the padding, which they count.
UNSAYABLE = (
    nn.AvgPool2d((2, 3), (3, 2), 1, ceil_mode=True),
    nn.AvgPool2d((2, 3), (3, 4), (1, 0), ceil_mode=True),
)


def pools() -> list[nn.Module]:
    """On 11 x 14 pixels: a window dropped along both axes, along one, along none; reaching behind the padding."""
    made: list[nn.Module] = []
    for kernel, stride, padding in ((2, 3, 1), ((2, 3), (3, 2), 1), (3, 2, 1), ((2, 3), (3, 4), (1, 0)), (3, 3, 1)):
        made.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=True))
        made += [nn.AvgPool2d(kernel, stride, padding, True, counted) for counted in (False, True)]
    refused = {str(pool) for pool in UNSAYABLE}
    return [pool for pool in made if str(pool) not in refused or not getattr(pool, "count_include_pad", False)]


@pytest.mark.parametrize("pool", pools(), ids=lambda pool: f"{pool} {getattr(pool, 'count_include_pad', '')}")
@pytest.mark.filterwarnings("ignore")
def test_what_follows_a_pool_sees_its_size(pool: nn.Module) -> None:
    torch.manual_seed(0)
    # The normalisation reshapes by constants of the size that was inferred.
    network = nn.Sequential(nn.Conv2d(2, 4, 1), pool, nn.GroupNorm(2, 4), nn.Flatten()).eval()
    x = torch.randn(1, 2, 11, 14)
    with torch.no_grad():
        expected = network(x).numpy()
    hub = load(network, input_shape=(2, 11, 14))
    (pooled,) = (node for node in hub.model.graph if node.op_type in ("MaxPool", "AveragePool"))
    assert tuple(pooled.outputs[0].shape)[2:] == tuple(pool(x).shape[2:])
    session = onnxruntime.InferenceSession(export_onnx(hub).SerializeToString(), providers=["CPUExecutionProvider"])
    runner = Interpreter(model_content=export_tflite(hub, layout="nchw")).get_signature_runner("serving_default")
    (lite,) = runner(**{hub.input_name: x.numpy()}).values()
    for output in (session.run(None, {hub.input_name: x.numpy()})[0], lite):
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", UNSAYABLE, ids=str)
def test_what_rounding_down_cannot_say_is_refused(pool: nn.Module) -> None:
    with pytest.raises(UserError, match=r"AveragePool.* not along every axis, and counts its padding; export it with"):
        load(pool.eval(), input_shape=(2, 11, 14))


@pytest.mark.filterwarnings("ignore")
def test_a_window_larger_than_the_input_counts() -> None:
    """Rounding up leaves one window that reaches behind the input on every side that it can."""
    pool = nn.MaxPool2d(3, 3, dilation=2, ceil_mode=True)
    x = torch.randn(1, 2, 4, 5)
    hub = load(pool.eval(), input_shape=(2, 4, 5))
    runner = Interpreter(model_content=export_tflite(hub, layout="nchw")).get_signature_runner("serving_default")
    (lite,) = runner(**{hub.input_name: x.numpy()}).values()
    np.testing.assert_array_equal(lite, pool(x).numpy())
