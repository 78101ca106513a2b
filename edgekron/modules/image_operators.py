"""Operators on images: convolutions, pools, pads, sizes and normalisations, as functions of torch tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator_registry import Function, OperatorCall, translates


@translates("Conv")
def _conv(call: OperatorCall) -> Function:
    axes = call.rank - 2
    if axes not in (1, 2, 3):
        call.refuse(f"{axes} axes")
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    stride, dilation = call.list("strides", [1] * axes), call.list("dilations", [1] * axes)
    pads, groups = call.list("pads", [0] * 2 * axes), call.integer("group", 1)
    even = pads[:axes] == pads[axes:]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x if even else F.pad(x, _torch_pads(pads))
        return function(x, weight, bias, stride, pads[:axes] if even else 0, dilation, groups)

    return run


@translates("ConvTranspose")
def _conv_transpose(call: OperatorCall) -> Function:
    if call.rank != 4 or call.list("output_shape", []):
        call.refuse("an output_shape or other than two axes")
    stride, dilation = call.list("strides", [1, 1]), call.list("dilations", [1, 1])
    (top, left, bottom, right), groups = call.list("pads", [0] * 4), call.integer("group", 1)
    extra = call.list("output_padding", [0, 0])

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # A pixel of zeros behind the image makes room for padding of the output, as large as a stride.
        y = F.conv_transpose2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride, 0, 0, groups, dilation)
        h, w = (
            (n - 1) * s + d * (k - 1) + 1 + more
            for n, s, d, k, more in zip(x.shape[2:], stride, dilation, weight.shape[2:], extra, strict=True)
        )
        return y[:, :, top : h - bottom, left : w - right]

    return run


@translates("Gemm")
def _gemm(call: OperatorCall) -> Function:
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    first, second = call.integer("transA", 0), call.integer("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.T if first else a
        if second and alpha == beta == 1.0 and (c is None or c.ndim == 1):
            return F.linear(a, b, c)
        y = alpha * (a @ (b.T if second else b))
        return y if c is None else y + beta * c

    return run


@translates("MaxPool")
def _max_pool(call: OperatorCall) -> Function:
    axes = call.rank - 2
    if axes not in (1, 2, 3) or len(call.node.outputs) > 1:
        call.refuse("indices, or a number of axes that pools do not have")
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
    window, stride = call.list("kernel_shape", []), call.list("strides", [1] * axes)
    dilation, pads = call.list("dilations", [1] * axes), call.list("pads", [0] * 2 * axes)
    ceil = bool(call.integer("ceil_mode", 0))

    def run(x: Tensor) -> Tensor:
        x = F.pad(x, _torch_pads(pads), value=-torch.inf) if any(pads) else x
        return function(x, window, stride, 0, dilation, ceil)

    return run


@translates("AveragePool")
def _average_pool(call: OperatorCall) -> Function:
    axes = call.rank - 2
    window, stride = call.list("kernel_shape", []), call.list("strides", [1] * axes)
    pads, counted = call.list("pads", [0] * 2 * axes), bool(call.integer("count_include_pad", 0))
    if axes not in (1, 2) or call.integer("ceil_mode", 0) or set(call.list("dilations", [1])) != {1}:
        call.refuse("ceil_mode, dilations, or more than two axes")
    if pads[:axes] != pads[axes:] and not counted:
        call.refuse("uneven pads that are not counted")
    even = pads[:axes] == pads[axes:]
    function = (F.avg_pool1d, F.avg_pool2d)[axes - 1]

    def run(x: Tensor) -> Tensor:
        x = x if even else F.pad(x, _torch_pads(pads))
        return function(x, window, stride, pads[:axes] if even else 0, ceil_mode=False, count_include_pad=counted)

    return run


@translates("GlobalAveragePool")
def _global_average(call: OperatorCall) -> Function:
    axes = list(range(2, call.rank))
    return lambda x: x.mean(axes, keepdim=True)


@translates("GlobalMaxPool")
def _global_max(call: OperatorCall) -> Function:
    axes = list(range(2, call.rank))
    return lambda x: x.amax(axes, keepdim=True)


@translates("Pad")
def _pad(call: OperatorCall) -> Function:
    names = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    mode, pads, axes = names.get(call.text("mode", "constant")), call.reader(1), call.reader(3)
    if mode is None:
        call.refuse(f"mode {call.text('mode', '')}")
    value = call.constant(2) if mode == "constant" else None
    number = 0.0 if value is None else value.reshape(-1)[0].item()

    def run(*inputs: Tensor) -> Tensor:
        x, given = inputs[0], pads(inputs) or []
        chosen = [axis % x.ndim for axis in axes(inputs) or range(x.ndim)]
        sides = [0] * 2 * x.ndim
        for index, axis in enumerate(chosen):
            sides[axis], sides[x.ndim + axis] = given[index], given[len(chosen) + index]
        if mode == "constant":
            return F.pad(x, _torch_pads(sides), value=number)
        # Other modes pad all axes but the first two.
        if any(sides[:2] + sides[x.ndim : x.ndim + 2]):
            call.refuse(f"mode {mode} on the first two axes")
        return F.pad(x, _torch_pads(sides[2 : x.ndim] + sides[x.ndim + 2 :]), mode=mode)

    return run


@translates("Resize")
def _resize(call: OperatorCall) -> Function:
    sizes = call.reader(3)
    mode, where = call.text("mode", "nearest"), call.text("coordinate_transformation_mode", "half_pixel")
    nearest = mode == "nearest" and where == "asymmetric" and call.text("nearest_mode", "") == "floor"
    linear = mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if call.rank != 4 or not (nearest or linear) or call.integer("antialias", 0) or call.list("axes", []):
        call.refuse(f"mode {mode}, {where}")
    scales = None if call.given(3) else call.constant(2)
    factors = None if scales is None else tuple(float(s) for s in scales[2:])
    options = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": where == "align_corners"}

    def run(*inputs: Tensor) -> Tensor:
        size = sizes(inputs)
        return F.interpolate(inputs[0], None if size is None else size[2:], factors, **options)

    return run


@translates("DepthToSpace")
def _depth_to_space(call: OperatorCall) -> Function:
    block = call.integer("blocksize", 1)
    if call.text("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, block)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, -1, h * block, w * block)

    return run


@translates("BatchNormalization")
def _batch_norm(call: OperatorCall) -> Function:
    if call.integer("training_mode", 0):
        call.refuse("training_mode")
    epsilon = call.number("epsilon", 1e-5)
    return lambda x, scale, shift, mean, var: F.batch_norm(x, mean, var, scale, shift, training=False, eps=epsilon)


@translates("InstanceNormalization")
def _instance_norm(call: OperatorCall) -> Function:
    epsilon = call.number("epsilon", 1e-5)
    return lambda x, scale, shift: F.instance_norm(x, weight=scale, bias=shift, eps=epsilon)


@translates("LayerNormalization")
def _layer_norm(call: OperatorCall) -> Function:
    axis, epsilon = call.integer("axis", -1), call.number("epsilon", 1e-5)
    if len(call.node.outputs) > 1:
        call.refuse("more than one output")
    return lambda x, scale, shift=None: F.layer_norm(x, x.shape[axis % x.ndim :], scale, shift, epsilon)


def _torch_pads(pads: list[int]) -> list[int]:
    """ONNX pads (all befores, then all afters) in torch's order: last axis first, each before and after."""
    half = len(pads) // 2
    return [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
