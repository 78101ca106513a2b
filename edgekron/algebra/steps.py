"""The steps that a layer is lowered to: plain data that every runtime has an operator for.

A step acts on the channels of an image and says nothing about NCHW or NHWC: the torch layers and both exporters run
the same list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arrays import Array, constant, contiguous, einsum, flipped, permuted
from .network import Geometry, Pair


@dataclass(frozen=True)
class Weight:
    """A convolution's or matrix product's weight as an einsum over factors, identities and vectors of ones.

    ``factors`` are indices into the layer's factors; the operands after them are ``constants``, ("eye", n) or
    ("ones", n). A ``computed`` weight is not in the file: the file has the factors, and the runtime evaluates the
    einsum once. ``reversed`` are the axes along which each factor is taken backwards, empty where no factor is.
    """

    factors: tuple[int, ...]
    equation: str
    constants: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    computed: bool = False
    reversed: tuple[tuple[int, ...], ...] = ()

    @property
    def window(self) -> Pair:
        """Height and width of a convolution's weight."""
        h, w = self.shape[2:]
        return h, w

    def operands(self, tensors: Sequence[Array]) -> list[Array]:
        """The operands of the einsum, but for the constants, from all factors of the layer, numpy or torch."""
        chosen = [tensors[i] for i in self.factors]
        if not any(self.reversed):
            return chosen
        return [flipped(factor, axes) for factor, axes in zip(chosen, self.reversed, strict=True)]

    def evaluate(self, tensors: Sequence[Array]) -> Array:
        """The weight, of ``shape``, from the layer's factors: arrays of numpy, or (differentiably) tensors of torch."""
        operands = self.operands(tensors)
        operands += [constant(kind, size, operands[0]) for kind, size in self.constants]
        return contiguous(einsum(self.equation, operands, optimize=len(self.factors) > 1).reshape(self.shape))


@dataclass(frozen=True)
class Shuffle:
    """Views the channels as ``shape``, transposes them by ``order``, and flattens them again."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def apply(self, vector: Array) -> Array:
        """The same on a vector [C], numpy or torch."""
        return permuted(vector.reshape(self.shape), self.order).reshape(-1)


@dataclass(frozen=True)
class Conv:
    """Views C channels as (fold, C / fold) and applies one grouped convolution to every slice.

    ``weight`` is [O, I / groups, kh, kw] for one slice. ``bias``, only in a step with a fold of 1, reorders the layer's
    bias vector.
    """

    weight: Weight
    groups: int
    fold: int
    geometry: Geometry
    bias: Shuffle | None = None

    def macs(self, size: Pair) -> int:
        """Multiply-accumulates as executed, zeros of an identity included."""
        h, w = self.geometry.output_size(size, self.weight.window)
        return h * w * self.fold * math.prod(self.weight.shape)


@dataclass(frozen=True)
class ConvTranspose:
    """Views C channels as (fold, C / fold) and applies one grouped transposed convolution to every slice.

    ``weight`` is [I, O / groups, kh, kw] for one slice, as torch and ONNX write it. ``geometry`` is that of the
    equivalent ordinary convolution; its ``upsample`` is the stride here. ``bias`` is as in ``Conv``.
    """

    weight: Weight
    groups: int
    fold: int
    geometry: Geometry
    bias: Shuffle | None = None

    @property
    def outputs(self) -> int:
        """Channels of one slice's output."""
        return self.groups * self.weight.shape[1]

    def macs(self, size: Pair) -> int:
        """Multiply-accumulates as executed, zeros of an identity included."""
        return math.prod(size) * self.fold * math.prod(self.weight.shape)


@dataclass(frozen=True)
class MatMul:
    """Views the channels as (contracted, trailing) and multiplies by ``weight`` [new, contracted] from the left."""

    weight: Weight
    trailing: int

    def macs(self, size: Pair) -> int:
        return math.prod(size) * self.trailing * math.prod(self.weight.shape)


@dataclass(frozen=True)
class Bias:
    """Adds the layer's bias vector, reordered by ``order``, to the channels."""

    order: Shuffle


Step = Shuffle | Conv | ConvTranspose | MatMul | Bias


def executed_macs(steps: Sequence[Step], size: Pair) -> int:
    """Multiply-accumulates that a runtime executes for one image of ``size`` (h, w), zeros of mixes included."""
    total = 0
    for step in steps:
        if isinstance(step, Conv | ConvTranspose | MatMul):
            total += step.macs(size)
        if isinstance(step, Conv | ConvTranspose):
            size = step.geometry.output_size(size, step.weight.window)
    return total
