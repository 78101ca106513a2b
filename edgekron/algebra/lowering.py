"""Lowering: from the stages of a contraction to steps that every runtime has.

A stage has several exact *forms*. With b the batch axes and s the carried axes (groups that share their filters):

    grouped   one convolution with b * s groups, the factor repeated for each s
    fold      the channels are viewed as s slices, and each slice is an image: the factor is stored once
    mix       factor (x) identity over b and s as one dense convolution: zeros inside, but no channel order to keep
    matmul    on single pixels without b: factor @ x, with s in the columns: the factor is stored once

and a whole layer may be ``dense``, the kernel expanded, or ``expand``: the factors are stored, and the runtime expands
the kernel when it loads the file. Where s is 1 the forms of a stage are the same plain convolution, called ``grouped``.

``grouped`` and ``fold`` need the contracted axes innermost among the channels and leave the new axes innermost;
``matmul`` needs the contracted axes outermost and leaves the new axes outermost; ``mix`` takes any order and gives any
order. ``lower`` finds the orders that need the fewest shuffles, so that most layers have none.

A stage of a transposed convolution that spreads the pixels is a transposed convolution, in all forms but ``matmul``.

``steps`` has the steps; ``einsums`` makes the step of a stage in a form.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from .einsums import Layout, convolution, matmul, mix, spread
from .network import FactorNetwork, Geometry, Stage, StructureError
from .steps import Bias, Conv, ConvTranspose, Shuffle, Step, Weight

FORMS = ("grouped", "fold", "mix", "matmul")
#: Forms of a whole layer, given alone.
WHOLE = ("dense", "expand")


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

    In ONNX Runtime, single pixels get matrix products, and all other stages slices folded into the batch. In LiteRT,
    slices are folded into the width, and become groups where a stride forbids that; on single pixels an identity costs
    less than a transpose while there are few channels. In "int8" the arithmetic is cheap beside a transpose, and a
    matrix product from the left stays float, so that single pixels take the identity unless most of it is zeros.
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
        return (spread(network, Conv(weight, network.total("g"), 1, geometry, plain)),)
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
            yield layout, spread(network, mix(network, stage, layout, after)), after
        return
    outer = tuple(a for a in layout if a in batch or a in carried)
    inner = tuple(a for a in layout if a in contracted)
    if form == "fold":
        outer = tuple(a for a in outer if a in carried) + tuple(a for a in outer if a in batch)
    for outer_order, made in itertools.product(_orders(outer, form, carried), itertools.permutations(new)):
        if form == "matmul":
            yield (*inner, *outer_order), matmul(network, stage, inner, made), (*made, *outer_order)
        else:
            step = convolution(network, stage, form, outer_order, inner, made)
            yield (*outer_order, *inner), spread(network, step), (*outer_order, *made)


def _orders(outer: Layout, form: str, carried: Layout) -> Iterator[Layout]:
    """Orders of the axes that a stage leaves alone, the present one first; a fold needs the carried ones outermost."""
    for order in itertools.permutations(outer):
        if form != "fold" or all(a in carried for a in order[: len(carried)]):
            yield order
