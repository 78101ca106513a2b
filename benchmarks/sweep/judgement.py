"""What counts as the same outputs: a small error, or one that float32 alone makes of the network's own weights."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from benchmarks.common.record import Row
from edgekron.exporters.verify import Difference, cases, difference

from .report import ROUNDINGS, TOLERANCE

#: Times that weights are changed: where a network chooses between equals, few changes turn a choice.
SHAKES = 4


def judged(ends: list[Difference], module: nn.Module, shape: tuple[int, ...]) -> Row:
    """Passed if every error is at most ``TOLERANCE``, or ``ROUNDINGS`` times the error of float32 itself in the
    untouched module: some random networks amplify rounding, most of all on the extreme inputs.
    """
    worst = max((end.relative for end in ends), default=0.0)
    outcome: Row = {"status": "pass", "relative": worst}
    if worst <= TOLERANCE:
        return outcome
    rounding = _rounding(module, shape)
    over = [end for end in ends if end.relative > max(TOLERANCE, ROUNDINGS * rounding.get(end.case, 0.0))]
    if over:
        end = max(over, key=lambda one: one.relative)
        said = f"relative error {end.relative:.1e} on {end.case}; float32 alone {rounding.get(end.case, 0.0):.1e}"
        return outcome | {"status": "wrong", "reason": said}
    return outcome | {"rounding": rounding[max(ends, key=lambda end: end.relative).case]}


@functools.cache
def _rounding(module: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """For each case, how far the module in float32 is from itself in float64, or in float64 with the last bit of each
    weight changed, and torch's own ONNX file of it in ONNX Runtime: what no file of float32 weights can promise.
    """
    example = torch.zeros(1, *shape)
    # Traced first, for torch.onnx.export prints the modules that it traces, and there are some that cannot be printed.
    program = torch.export.export(module, (example,), strict=False)
    plain = torch.onnx.export(program, dynamo=True, verbose=False).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
    precise = copy.deepcopy(module).double()
    shaken = [_shaken(precise, seed) for seed in range(SHAKES)]
    worst: dict[str, float] = {}
    for case, x in cases(shape, None):
        with torch.no_grad():
            exact = tensors(precise(torch.from_numpy(x).double()))
            others = tensors(module(torch.from_numpy(x)))
            others += [t for other in shaken for t in tensors(other(torch.from_numpy(x).double()))]
        inputs = session.get_inputs()[0].name
        given = [session.run(None, {inputs: image[None]}) for image in x]
        others += [torch.from_numpy(np.concatenate(parts)) for parts in zip(*given, strict=True)]
        pairs = zip(exact * (2 + SHAKES), others, strict=True)
        worst[case] = max(difference("", case, e.numpy(), o.numpy()).relative for e, o in pairs)
    return worst


def _shaken(module: nn.Module, seed: int) -> nn.Module:
    """A copy with the last float32 bit of each weight changed at random."""
    generator = torch.Generator().manual_seed(seed)
    shaken = copy.deepcopy(module)
    with torch.no_grad():
        for value in shaken.state_dict().values():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.mul_(1 + (2 * noise - 1) * 2**-23)
    return shaken


def tensors(output: Any) -> list[Any]:
    """All tensors of an output, in the order in which torch.export flattens it."""
    return tree_leaves(output)
