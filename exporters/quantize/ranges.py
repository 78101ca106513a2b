"""The ranges between the stages of factorized layers on calibration images.

Every stage runs in the form that the algebra gives directly: carried axes folded into the batch, batch axes as groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from edgekron.algebra import Stage
from edgekron.graph import Factorized, Hub

from .rebalance import Ranges

#: Images that are in memory at once, with the inputs of all factorized layers.
AT_ONCE = 4


def stage_ranges(hub: Hub, images: Iterable[np.ndarray]) -> dict[str, list[Ranges]]:
    """By layer, the ranges after each stage but the last, over all ``images``, which are as the network takes them."""
    layers: dict[str, list[Factorized]] = {}
    for layer in hub.layers():
        if layer.factorized is not None:
            layers.setdefault(layer.input, []).append(layer.factorized)
    found: dict[str, list[Ranges]] = {}
    if not layers:
        return found
    inner = [name for name in layers if name != hub.input_name]
    session = plain_session(hub, inner) if inner else None
    for batch in images:
        for start in range(0, len(batch), AT_ONCE):
            x = batch[start : start + AT_ONCE]
            values = {hub.input_name: x}
            if session:
                values |= dict(zip(inner, session.run(inner, {hub.input_name: x}), strict=True))
            for name, users in layers.items():
                for factorized in users:
                    new = list(layer_ranges(factorized, values[name]))
                    old = found.get(factorized.layer, new)
                    found[factorized.layer] = [a.joined(b) for a, b in zip(old, new, strict=True)]
    return found


def layer_ranges(factorized: Factorized, x: np.ndarray) -> Iterator[Ranges]:
    """The ranges after each stage but the last, on the layer's input ``x``.

    ``x`` is [N, C, H, W], or [..., C] for a fully connected layer.
    """
    network = factorized.network
    value = torch.from_numpy(np.array(x, np.float32))
    if factorized.kind == "linear":
        value = value.reshape(-1, value.shape[-1], 1, 1)
    axes = [*network.parts("g"), *network.parts("c")]
    value = value.reshape(len(value), *(network.sizes[a] for a in axes), *value.shape[2:])
    for stage in network.stages(factorized.order, factorized.geometry)[:-1]:
        value = _run(stage, network.axes[stage.factor], factorized.tensors[stage.factor], value, axes)
        axes = [*stage.carried, *stage.batch, *stage.new]
        ranks = tuple(a for a in axes if a[0] == "r")
        others = [i for i in range(value.ndim) if not 0 < i <= len(axes) or axes[i - 1] not in ranks]
        yield Ranges(ranks, value.amin(dim=others).numpy(), value.amax(dim=others).numpy())


def _run(stage: Stage, axes: tuple[str, ...], tensor: np.ndarray, x: torch.Tensor, opened: list[str]) -> torch.Tensor:
    """One stage on ``x`` [N, open axes, H, W]; gives [N, carried, batch, new, H', W']."""
    groups = (*stage.carried, *stage.batch, *stage.contracted)
    images, size = len(x), tuple(x.shape[-2:])
    x = x.permute(0, *(opened.index(a) + 1 for a in groups), x.ndim - 2, x.ndim - 1)
    x = x.reshape(images * stage.size(stage.carried), -1, *size)
    window = [a for kind in "hw" for a in axes if a[0] == kind]
    order = (*stage.batch, *stage.new, *stage.contracted, *window)
    weight = torch.from_numpy(tensor.copy()).permute([axes.index(a) for a in order])
    weight = weight.reshape(-1, stage.size(stage.contracted), *stage.kernel)
    geometry = stage.geometry
    if geometry.transposed:
        spread = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(size, geometry.upsample, strict=True)))
        spread[..., :: geometry.upsample[0], :: geometry.upsample[1]] = x
        x = spread
    (top, bottom), (left, right) = geometry.padding
    y = F.conv2d(
        F.pad(x, (left, right, top, bottom)),
        weight,
        stride=geometry.stride,
        dilation=geometry.dilation,
        groups=math.prod(stage.sizes[a] for a in stage.batch),
    )
    kept = (*stage.carried, *stage.batch, *stage.new)
    return y.reshape(images, *(stage.sizes[a] for a in kept), *y.shape[2:])


def plain_session(hub: Hub, outputs: list[str]) -> onnxruntime.InferenceSession:
    """The hub from its input to the values ``outputs`` in ONNX Runtime, silent and without threads that spin."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = hub.submodel([hub.input_name], outputs).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
