"""Lowering: from the stages of a contraction to steps that every runtime has.

A stage has several exact *forms*. With b = its batch axes, s = its carried axes (groups that share their filters):

    grouped   one convolution with b * s groups, the factor repeated for each s
    fold      the channels are viewed as s slices, and each slice is an image of its own: factor stored once
    mix       factor (x) identity over b and s as one dense convolution: zeros inside, but no channel order to keep
    matmul    on single pixels without b: factor @ x, with s in the columns: factor stored once

and a whole layer may be ``dense``, the kernel expanded, or ``expand``: the factors are stored, and the runtime expands
the kernel when it loads the file. Where s is 1 all of them are the same plain convolution, called
``grouped``. ``grouped`` and ``fold`` need the contracted axes innermost among the channels and leave the new ones
there; ``matmul`` needs and leaves them outermost; ``mix`` takes any order and gives any order. ``lower`` finds the
orders that need the fewest shuffles, so that most layers have none.

A stage of a transposed convolution that spreads the pixels is a transposed convolution, in all forms but ``matmul``.

The steps say nothing about NCHW or NHWC: the torch layers and both exporters run the same list.
"""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .network import SPATIAL, FactorNetwork, Geometry, Pair, Stage, StructureError

FORMS = ("grouped", "fold", "mix", "matmul")
#: Forms of a whole layer, given alone.
WHOLE = ("dense", "expand")

#: An order of open channel axes, outermost first. Axes of size one are left out.
Layout = tuple[str, ...]


@dataclass(frozen=True)
class Weight:
    """A convolution's or matrix product's weight as an einsum over factors, identities and vectors of ones.

    ``factors`` are indices into the layer's factors; ``constants`` are ("eye", n) or ("ones", n), the operands after
    them. Where it is ``computed``, the file has the factors, and its runtime evaluates the einsum once. ``reversed``
    are the axes of each factor along which it is taken backwards, nothing for none.
    """

    factors: tuple[int, ...]
    equation: str
    constants: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    computed: bool = False
    reversed: tuple[tuple[int, ...], ...] = ()

    def operands(self, tensors: Sequence[Any]) -> list[Any]:
        """The factors, numpy or torch, as they enter the einsum."""
        chosen = [tensors[i] for i in self.factors]
        if not any(self.reversed):
            return chosen
        if hasattr(chosen[0], "detach"):
            return [t.flip(axes) for t, axes in zip(chosen, self.reversed, strict=True)]
        import numpy as np

        return [np.flip(t, axes) for t, axes in zip(chosen, self.reversed, strict=True)]

    def evaluate(self, tensors: Sequence[Any]) -> Any:
        """The weight, of ``shape``, from numpy arrays or (differentiably) from torch tensors."""
        operands = self.operands(tensors)
        if hasattr(operands[0], "detach"):
            import torch

            like = {"dtype": operands[0].dtype, "device": operands[0].device}
            made = [torch.eye(n, **like) if kind == "eye" else torch.ones(n, **like) for kind, n in self.constants]
            return torch.einsum(self.equation, *operands, *made).reshape(self.shape)
        import numpy as np

        dtype = operands[0].dtype
        arrays = [np.eye(n, dtype=dtype) if kind == "eye" else np.ones(n, dtype) for kind, n in self.constants]
        value = np.einsum(self.equation, *operands, *arrays, optimize=len(self.factors) > 1)
        return np.ascontiguousarray(value.reshape(self.shape))


@dataclass(frozen=True)
class Shuffle:
    """Views the channels as ``shape``, transposes them by ``order``, and flattens them again."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def apply(self, vector: Any) -> Any:
        """The same on a vector [C], numpy or torch."""
        view = vector.reshape(self.shape)
        moved = view.permute(self.order) if hasattr(view, "permute") else view.transpose(self.order)
        return moved.reshape(-1)


@dataclass(frozen=True)
class Conv:
    """Views C channels as (fold, C / fold) and applies one grouped convolution to every slice.

    ``weight`` is [O, I / groups, kh, kw] for one slice. ``bias``, only where fold is 1, says how the layer's bias
    vector is reordered.
    """

    weight: Weight
    groups: int
    fold: int
    geometry: Geometry
    bias: Shuffle | None = None

    def macs(self, size: Pair) -> int:
        """Multiply-accumulates as executed, zeros of an identity included."""
        h, w = self.geometry.output_size(size, self.weight.shape[2:])  # type: ignore[arg-type]
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


def valid_forms(stage: Stage, target: str) -> tuple[str, ...]:
    """The distinct forms of a stage that ``target`` ("onnx", "tflite" or "torch") can run exactly."""
    if stage.size(stage.carried) == 1:
        return ("grouped",)
    forms = ["grouped"]
    # In NHWC the slices lie along the width, where a stride would skip some of them.
    if target != "tflite" or (stage.geometry.stride[1], stage.geometry.upsample[1]) == (1, 1):
        forms.append("fold")
    forms.append("mix")
    if target != "tflite" and stage.pointwise and stage.size(stage.batch) == 1:
        forms.append("matmul")
    return tuple(forms)


def default_forms(stages: Sequence[Stage], target: str, dtype: str = "float32") -> tuple[str, ...]:
    """The form of each stage that was fastest for ``dtype`` in most measurements on ``target``.

    ONNX Runtime: matrix products on single pixels, slices folded into the batch elsewhere. LiteRT: slices folded into
    the width, and groups where a stride forbids that; on single pixels the identity costs less than a transpose while
    there are few channels. In "int8" a transpose is dearer beside the arithmetic and a matrix product from the left
    stays float, so that single pixels take the identity as long as it is not mostly zeros.
    """
    chosen = []
    for stage in stages:
        valid = valid_forms(stage, target)
        width = stage.size(stage.carried) * max(stage.size(stage.new), stage.size(stage.contracted))
        if dtype == "int8":
            wanted = ["mix"] if stage.pointwise and (target == "onnx" or width <= 256) else ["fold", "grouped"]
            if stage.pointwise and target == "tflite":
                wanted.append("grouped")
        elif target == "tflite":
            wanted = ["fold", "mix" if stage.pointwise else "grouped"]
            if stage.pointwise and width <= 64:
                wanted.reverse()
        else:
            wanted = ["matmul", "fold"]
        chosen.append(next((form for form in wanted if form in valid), valid[0]))
    return tuple(chosen)


def lower(
    network: FactorNetwork, order: Sequence[int], geometry: Geometry, forms: Sequence[str], *, bias: bool
) -> tuple[Step, ...]:
    """The steps of a layer: one form for each stage of ``order``, or one of ``WHOLE`` for the expanded kernel.

    The result takes channels in the order (g, parts of c) and gives (g, parts of f), as the dense layer does. Raises
    ``StructureError`` for a form that is unknown, or not exact for its stage.
    """
    if len(forms) == 1 and forms[0] in WHOLE:
        everything = tuple(range(len(network.axes)))
        computed = forms[0] == "expand"
        weight = Weight(everything, network.equation(), (), network.kernel_shape, computed)
        plain = Shuffle((network.kernel_shape[0],), (0,)) if bias else None
        return (_spread(network, Conv(weight, network.total("g"), 1, geometry, plain)),)
    stages = network.stages(order, geometry)
    if len(forms) != len(stages):
        raise StructureError(f"{len(forms)} forms {list(forms)} for {len(stages)} stages; give one for each")
    for stage, form in zip(stages, forms, strict=True):
        if form not in valid_forms(stage, "torch") and not (form in FORMS and stage.size(stage.carried) == 1):
            raise StructureError(
                f"form {form!r} is not exact for stage {stage.factor} of {network.factors!r}; "
                f"it can be {', '.join(valid_forms(stage, 'torch'))}"
            )
    canonical = tuple(
        "grouped" if stage.size(stage.carried) == 1 else form for stage, form in zip(stages, forms, strict=True)
    )
    inputs = _large(network, (*network.parts("g"), *network.parts("c")))
    steps, layout = _fewest_shuffles(network, stages, canonical, inputs)
    if bias:
        steps = _with_bias(network, steps, layout)
    outputs = _large(network, (*network.parts("g"), *network.parts("f")))
    if layout != outputs:
        steps = (*steps, _shuffle(network, layout, outputs))
    return steps


def executed_macs(steps: Sequence[Step], size: Pair) -> int:
    """Multiply-accumulates that a runtime executes for one image of ``size`` (h, w), zeros of mixes included."""
    total = 0
    for step in steps:
        if isinstance(step, Conv | ConvTranspose | MatMul):
            total += step.macs(size)
        if isinstance(step, Conv | ConvTranspose):
            size = step.geometry.output_size(size, step.weight.shape[2:])  # type: ignore[arg-type]
    return total


def _large(network: FactorNetwork, axes: Sequence[str]) -> Layout:
    return tuple(a for a in axes if network.sizes[a] > 1)


def _shuffle(network: FactorNetwork, source: Layout, target: Layout) -> Shuffle:
    return Shuffle(tuple(network.sizes[a] for a in source), tuple(source.index(a) for a in target))


def _with_bias(network: FactorNetwork, steps: tuple[Step, ...], layout: Layout) -> tuple[Step, ...]:
    natural = _large(network, (*network.parts("g"), *network.parts("f")))
    order = _shuffle(network, natural, layout) if natural else Shuffle((1,), (0,))
    last = steps[-1]
    if isinstance(last, Conv | ConvTranspose) and last.fold == 1:
        return (*steps[:-1], replace(last, bias=order))
    return (*steps, Bias(order))


def _fewest_shuffles(
    network: FactorNetwork, stages: Sequence[Stage], forms: Sequence[str], inputs: Layout
) -> tuple[tuple[Step, ...], Layout]:
    """The steps with the fewest shuffles, one at the very end counted, and the layout they leave."""
    outputs = _large(network, (*network.parts("g"), *network.parts("f")))

    @cache
    def search(index: int, layout: Layout) -> tuple[int, tuple[Step, ...], Layout]:
        if index == len(stages):
            return int(layout != outputs), (), layout
        best: tuple[int, tuple[Step, ...], Layout] | None = None
        for before, step, after in _placements(network, stages[index], forms[index], layout):
            moved = before != layout
            cost, rest, final = search(index + 1, after)
            if best is None or cost + moved < best[0]:
                prefix = (_shuffle(network, layout, before),) if moved else ()
                best = (cost + moved, (*prefix, step, *rest), final)
        if best is None:
            raise AssertionError("every stage has at least one placement")
        return best

    _, steps, layout = search(0, inputs)
    return steps, layout


def _placements(
    network: FactorNetwork, stage: Stage, form: str, layout: Layout
) -> Iterator[tuple[Layout, Step, Layout]]:
    """(layout before, step, layout after) for every channel order in which a stage can run in ``form``."""
    contracted, new = _large(network, stage.contracted), _large(network, stage.new)
    batch, carried = _large(network, stage.batch), _large(network, stage.carried)
    if form == "mix":
        for after in itertools.permutations((*batch, *carried, *new)):
            yield layout, _spread(network, _mix(network, stage, layout, after)), after
        return
    outer = tuple(a for a in layout if a in batch or a in carried)
    inner = tuple(a for a in layout if a in contracted)
    if form == "fold":
        outer = tuple(a for a in outer if a in carried) + tuple(a for a in outer if a in batch)
    for outer_order, made in itertools.product(_orders(outer, form, carried), itertools.permutations(new)):
        if form == "matmul":
            yield (*inner, *outer_order), _matmul(network, stage, inner, made), (*made, *outer_order)
        else:
            step = _convolution(network, stage, form, outer_order, inner, made)
            yield (*outer_order, *inner), _spread(network, step), (*outer_order, *made)


def _orders(outer: Layout, form: str, carried: Layout) -> Iterator[Layout]:
    """Orders of the axes that a stage leaves alone, the present one first; a fold needs the carried ones outermost."""
    for order in itertools.permutations(outer):
        if form != "fold" or all(a in carried for a in order[: len(carried)]):
            yield order


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
    """A weight from one factor and ``constants`` of (kind, size, letters)."""
    left = ",".join([letters(network.axes[stage.factor]), *(names for _, _, names in constants)])
    made = tuple((kind, size) for kind, size, _ in constants)
    return Weight((stage.factor,), f"{left}->{output}", made, shape)


def _window_letters(network: FactorNetwork, stage: Stage, letters: _Letters) -> str:
    axes = network.axes[stage.factor]
    return letters([a for kind in "hw" for a in axes if a[0] == kind and network.sizes[a] > 1])


def _convolution(network: FactorNetwork, stage: Stage, form: str, outer: Layout, inner: Layout, made: Layout) -> Conv:
    letters, size = _Letters(), network.sizes
    carried = [a for a in outer if a in stage.carried]
    groups_axes = list(outer) if form == "grouped" else [a for a in outer if a in stage.batch]
    constants = [("ones", size[a], letters([a])) for a in carried] if form == "grouped" else []
    output = letters(groups_axes) + letters(made) + letters(inner) + _window_letters(network, stage, letters)
    groups = math.prod(size[a] for a in groups_axes)
    shape = (groups * stage.size(stage.new), stage.size(stage.contracted), *stage.kernel)
    fold = math.prod(size[a] for a in carried) if form == "fold" else 1
    return Conv(_weight(network, stage, output, letters, shape, constants), groups, fold, stage.geometry)


def _mix(network: FactorNetwork, stage: Stage, before: Layout, after: Layout) -> Conv:
    letters, size = _Letters(), network.sizes
    kept = [a for a in before if a in stage.carried or a in stage.batch]
    constants = [("eye", size[a], letters([a]) + letters([a], copy=[a])) for a in kept]
    output = letters(after) + letters(before, copy=kept) + _window_letters(network, stage, letters)
    shape = (math.prod(size[a] for a in after), math.prod(size[a] for a in before), *stage.kernel)
    return Conv(_weight(network, stage, output, letters, shape, constants), 1, 1, stage.geometry)


def _matmul(network: FactorNetwork, stage: Stage, inner: Layout, made: Layout) -> MatMul:
    letters = _Letters()
    output = letters(made) + letters(inner)
    shape = (stage.size(stage.new), stage.size(stage.contracted))
    return MatMul(_weight(network, stage, output, letters, shape), stage.size(stage.carried))


def _spread(network: FactorNetwork, step: Conv) -> Conv | ConvTranspose:
    """The step as a transposed convolution if its geometry is that of one: channels swapped, window backwards."""
    if not step.geometry.transposed:
        return step
    weight = step.weight
    terms, output = weight.equation.split("->")
    operands = terms.split(",")
    sizes = {x: size for letters, (_, size) in zip(operands[len(weight.factors) :], weight.constants, strict=True)
             for x in letters}  # fmt: skip
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
    crop = step.geometry.crop((weight.shape[2], weight.shape[3]))
    for (before, behind), spread in zip(crop, step.geometry.upsample, strict=True):
        if before < 0 or behind <= -spread:
            raise StructureError(
                f"a padding of {step.geometry.padding} reaches beyond a window of {weight.shape[2:]} on pixels spread "
                f"by {step.geometry.upsample}"
            )
    return ConvTranspose(swapped, step.groups, step.fold, step.geometry, step.bias)
