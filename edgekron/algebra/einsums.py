"""A stage in a given form as a step: the factor as the weight of a convolution or of a matrix product.

A weight is an einsum whose letters are the stage's axes. ``grouped`` repeats the factor along vectors of ones, ``mix``
multiplies it into identities; ``fold`` and ``matmul`` only put the axes of the factor in another order.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import replace

from .network import SPATIAL, FactorNetwork, Stage, StructureError
from .steps import Conv, ConvTranspose, MatMul, Weight

#: An order of open channel axes, outermost first. Axes of size one are left out.
Layout = tuple[str, ...]


class _Letters:
    """Names axes by letters for an einsum; the copy of an axis on the input side has a letter of its own."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, bool], str] = {}

    def __call__(self, axes: Sequence[str], copy: Sequence[str] = ()) -> str:
        keys = [(a, a in copy) for a in axes]
        return "".join(self._names.setdefault(key, string.ascii_letters[len(self._names)]) for key in keys)


def _weight(
    network: FactorNetwork,
    stage: Stage,
    output: str,
    letters: _Letters,
    shape: tuple[int, ...],
    constants: Sequence[tuple[str, int, str]] = (),
) -> Weight:
    """A weight from the stage's factor and ``constants`` of (kind, size, letters)."""
    left = ",".join([letters(network.axes[stage.factor]), *(names for _, _, names in constants)])
    made = tuple((kind, size) for kind, size, _ in constants)
    return Weight((stage.factor,), f"{left}->{output}", made, shape)


def _window_letters(network: FactorNetwork, stage: Stage, letters: _Letters) -> str:
    axes = network.axes[stage.factor]
    return letters([a for kind in "hw" for a in axes if a[0] == kind and network.sizes[a] > 1])


def convolution(network: FactorNetwork, stage: Stage, form: str, outer: Layout, inner: Layout, made: Layout) -> Conv:
    """The step of a stage in the form "grouped" or "fold", for channels in the order (outer, inner).

    ``inner`` are the contracted axes and ``outer`` all others; the step leaves (outer, made), ``made`` the new axes.
    """
    letters, size = _Letters(), network.sizes
    carried = [a for a in outer if a in stage.carried]
    groups_axes = list(outer) if form == "grouped" else [a for a in outer if a in stage.batch]
    constants = [("ones", size[a], letters([a])) for a in carried] if form == "grouped" else []
    output = letters(groups_axes) + letters(made) + letters(inner) + _window_letters(network, stage, letters)
    groups = math.prod(size[a] for a in groups_axes)
    shape = (groups * stage.size(stage.new), stage.size(stage.contracted), *stage.kernel)
    fold = math.prod(size[a] for a in carried) if form == "fold" else 1
    return Conv(_weight(network, stage, output, letters, shape, constants), groups, fold, stage.geometry)


def mix(network: FactorNetwork, stage: Stage, before: Layout, after: Layout) -> Conv:
    """The step of a stage in the form "mix", from channels in the order ``before`` to those in the order ``after``."""
    letters, size = _Letters(), network.sizes
    kept = [a for a in before if a in stage.carried or a in stage.batch]
    constants = [("eye", size[a], letters([a]) + letters([a], copy=[a])) for a in kept]
    output = letters(after) + letters(before, copy=kept) + _window_letters(network, stage, letters)
    shape = (math.prod(size[a] for a in after), math.prod(size[a] for a in before), *stage.kernel)
    return Conv(_weight(network, stage, output, letters, shape, constants), 1, 1, stage.geometry)


def matmul(network: FactorNetwork, stage: Stage, inner: Layout, made: Layout) -> MatMul:
    """The step of a stage in the form "matmul", from channels (inner, others) to (made, others)."""
    letters = _Letters()
    output = letters(made) + letters(inner)
    shape = (stage.size(stage.new), stage.size(stage.contracted))
    return MatMul(_weight(network, stage, output, letters, shape), stage.size(stage.carried))


def spread(network: FactorNetwork, step: Conv) -> Conv | ConvTranspose:
    """The step as a transposed convolution if its geometry is that of one: channels swapped, window backwards.

    Raises ``StructureError`` for a padding that no transposed convolution has.
    """
    if not step.geometry.transposed:
        return step
    weight = step.weight
    terms, output = weight.equation.split("->")
    operands = terms.split(",")
    constants = zip(operands[len(weight.factors) :], weight.constants, strict=True)
    sizes = {letter: size for letters, (_, size) in constants for letter in letters}
    for letters, factor in zip(operands, weight.factors, strict=False):
        sizes |= dict(zip(letters, network.factor_shape(factor), strict=True))
    made, taken = weight.shape[0] // step.groups, weight.shape[1]
    parts, rest = [], output
    for product in (step.groups, made, taken):
        length = 0
        while math.prod(sizes[x] for x in rest[:length]) < product:
            length += 1
        parts.append(rest[:length])
        rest = rest[length:]
    backwards = tuple(
        tuple(i for i, axis in enumerate(network.axes[factor]) if axis[0] in SPATIAL) for factor in weight.factors
    )
    swapped = replace(
        weight,
        equation=f"{terms}->{parts[0]}{parts[2]}{parts[1]}{rest}",
        shape=(step.groups * taken, made, *weight.shape[2:]),
        reversed=backwards,
    )
    crop = step.geometry.crop(weight.window)
    for (before, behind), gap in zip(crop, step.geometry.upsample, strict=True):
        if before < 0 or behind <= -gap:
            raise StructureError(
                f"a padding of {step.geometry.padding} reaches beyond a window of {weight.shape[2:]} on pixels spread "
                f"by {step.geometry.upsample}"
            )
    return ConvTranspose(swapped, step.groups, step.fold, step.geometry, step.bias)
