"""Random networks of supported operators give the same values in torch, ONNX Runtime and LiteRT."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import load

Draw = Callable[[st.SearchStrategy], object]


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], text: str) -> None:
        super().__init__()
        self.function, self.text = function, text

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.text


class Joined(nn.Module):
    """Two branches of the same input, joined by a function."""

    def __init__(self, left: nn.Module, right: nn.Module, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.left, self.right, self.join = left, right, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.left(x), self.right(x))


@dataclass(frozen=True)
class Size:
    """Channels and pixels of a feature map."""

    c: int
    h: int
    w: int


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "leaky": F.leaky_relu, "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid,
    "silu": F.silu, "mish": F.mish, "gelu": F.gelu, "elu": F.elu, "selu": F.selu, "celu": lambda x: F.celu(x, 0.7),
    "softplus": F.softplus, "softsign": F.softsign, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "abs": torch.abs,
    "exp": lambda x: torch.exp(x.clamp(max=2)), "sqrt": lambda x: torch.sqrt(x.abs() + 0.1), "square": lambda x: x**2,
    "softmax": lambda x: torch.softmax(x, 1), "logsoftmax": lambda x: torch.log_softmax(x, 1),
    "clamp": lambda x: x.clamp(-0.5, 0.7), "reciprocal": lambda x: 1 / (x.abs() + 0.5), "sin": torch.sin,
    "where": lambda x: torch.where(x > 0.1, x, -0.5 * x), "erf": torch.erf, "maximum": lambda x: torch.maximum(x, -x),
    "cumsum": lambda x: torch.cumsum(x, 2), "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "norm": lambda x: F.normalize(x, dim=1), "lse": lambda x: x - torch.logsumexp(x, 1, keepdim=True),
}  # fmt: skip


def convolution(draw: Draw, size: Size) -> nn.Module:
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 1), (2, 2), (5, 3)]))
    groups = draw(st.sampled_from([n for n in (1, 2, size.c) if size.c % n == 0]))
    outputs = groups * draw(st.integers(1, 3))
    stride, dilation = draw(st.sampled_from([1, 2, (2, 1)])), draw(st.sampled_from([1, 2]))
    bias = draw(st.booleans())
    make = nn.ConvTranspose2d if draw(st.integers(0, 3)) == 0 else nn.Conv2d
    padding = [d // 2 for d in kernel]
    return make(size.c, outputs, kernel, stride, padding, groups=groups, bias=bias, dilation=dilation)


def pool(draw: Draw, size: Size) -> nn.Module:
    kernel, stride = draw(st.sampled_from([2, 3, (3, 2)])), draw(st.sampled_from([1, 2, 3]))
    padding, ceil = draw(st.integers(0, 1)), draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, draw(st.sampled_from([1, 2])), ceil_mode=ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()))


def normalisation(draw: Draw, size: Size) -> nn.Module:
    kind = draw(st.sampled_from(["batch", "group", "instance", "layer"]))
    if kind == "batch":
        norm: nn.Module = nn.BatchNorm2d(size.c)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    elif kind == "group":
        norm = nn.GroupNorm(1 + (size.c % 2 == 0), size.c)
    elif kind == "instance":
        norm = nn.InstanceNorm2d(size.c, affine=True)
    else:
        norm = nn.LayerNorm([size.c, size.h, size.w])
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


def resize(draw: Draw, size: Size) -> nn.Module:
    mode = draw(st.sampled_from(["nearest", "bilinear", "bicubic"]))
    target = (draw(st.integers(1, 2 * size.h)), draw(st.integers(1, 2 * size.w)))
    align = draw(st.booleans()) if mode != "nearest" else None
    return Function(lambda x: F.interpolate(x, target, mode=mode, align_corners=align), f"{mode} {target} {align}")


def pad(draw: Draw, size: Size) -> nn.Module:
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    widths = [draw(st.integers(0, min(2, n - 1))) for n in (size.w, size.w, size.h, size.h)]
    return Function(lambda x: F.pad(x, widths, mode), f"pad {mode} {widths}")


def view(draw: Draw, size: Size) -> nn.Module:
    """What moves values without computing: shuffles, slices, transposes, blocks."""
    kind = draw(st.sampled_from(["shuffle", "slice", "transpose", "roll", "unshuffle", "gather", "flatten"]))
    index = [draw(st.integers(0, size.c - 1)) for _ in range(draw(st.integers(1, 4)))]
    moved: dict[str, Callable[[Tensor], Tensor]] = {
        "shuffle": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
        "slice": lambda x: x[:, 1:, :: min(2, size.h), size.w // 2 :],
        "transpose": lambda x: x.transpose(2, 3),
        "roll": lambda x: torch.cat([x[:, :, 1:], x[:, :, :1]], 2),
        "unshuffle": lambda x: F.pixel_unshuffle(F.interpolate(x, scale_factor=2), 2),
        "gather": lambda x: x[:, index],
        "flatten": lambda x: x.flatten(2).transpose(1, 2).unflatten(1, (size.h, size.w)).permute(0, 3, 1, 2),
    }
    return Function(moved[kind], f"{kind} {index}")


def activation(draw: Draw, size: Size) -> nn.Module:
    name = draw(st.sampled_from(sorted(ACTIVATIONS)))
    return Function(ACTIVATIONS[name], name)


def branches(draw: Draw, size: Size) -> nn.Module:
    left, right = (nn.Conv2d(size.c, 4, 1), activation(draw, size))
    join = draw(st.sampled_from(["cat", "add", "mul", "attention"]))
    if join == "cat":
        return Joined(left, right, lambda a, b: torch.cat([a, b], 1))
    if join == "attention":
        return Joined(left, right, lambda a, b: (a.flatten(2) @ b.flatten(2).transpose(1, 2)).unsqueeze(2) / 10)
    combine = torch.add if join == "add" else torch.mul
    return Joined(nn.Conv2d(size.c, size.c, 1), right, combine)


STEPS = (convolution, pool, normalisation, resize, pad, view, activation, activation, branches)


@st.composite
def networks(draw: Draw) -> tuple[nn.Module, Tensor]:
    """A chain of layers, each fitting the feature map that it gets, perhaps with a classifier behind; and its input."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randn(1, draw(st.sampled_from([2, 4, 6])), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    layers: list[nn.Module] = []
    y = x
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        layer = step(draw, Size(*y.shape[1:])).eval()
        try:
            with torch.no_grad():
                after = layer(y)
        except (RuntimeError, ValueError):
            continue
        # Neither nothing nor too much, and of a size that float32 holds to the tolerance.
        if after.numel() and max(after.shape) <= 64 and 1e-3 < float(after.abs().max()) < 1e3:
            layers, y = [*layers, layer], after
    if draw(st.booleans()):
        layers += [nn.AdaptiveAvgPool2d(1)] if draw(st.booleans()) else []
        width = y.shape[1] if len(layers) and isinstance(layers[-1], nn.AdaptiveAvgPool2d) else y[0].numel()
        layers += [nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(*layers, nn.ReLU()).eval(), x


def outputs(module: nn.Module, x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What torch, ONNX Runtime and LiteRT make of a module."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        hub = load(module, input_shape=tuple(x.shape[1:]))
    with torch.no_grad():
        expected = module(x).numpy()
    session = onnxruntime.InferenceSession(export_onnx(hub).SerializeToString(), providers=["CPUExecutionProvider"])
    (onnx_output,) = session.run(None, {hub.input_name: x.numpy()})
    runner = Interpreter(model_content=export_tflite(hub, layout="nchw")).get_signature_runner("serving_default")
    (tflite_output,) = runner(**{hub.input_name: x.numpy()}).values()
    return expected, onnx_output, tflite_output


def check(network: tuple[nn.Module, Tensor]) -> None:
    expected, *others = outputs(*network)
    for output in others:
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


# A failing network is short as it is; making it shorter would export hundreds of others.
QUICK = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.thorough
@given(networks())
@QUICK
def test_random_networks_agree(network: tuple[nn.Module, Tensor]) -> None:
    check(network)


@pytest.mark.thorough
@given(networks())
@settings(QUICK, max_examples=500)
def test_many_random_networks_agree(network: tuple[nn.Module, Tensor]) -> None:
    check(network)
