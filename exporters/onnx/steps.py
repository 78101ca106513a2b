"""Lowered steps as standard ONNX operators, in NCHW with a dynamic batch.

    Shuffle   Reshape [-1, *shape, h*w], Transpose           Conv     Reshape [-1, C/fold, h, w], Conv (-Transpose)
    MatMul    Reshape [-1, contracted, trailing*h*w], MatMul  Bias     Add of [C, 1, 1]

The sizes behind the batch are constants, so that -1 stands for the batch (times fold) and no shape is computed at run
time. A tensor is only reshaped when the next step wants another view of it: fold after fold needs one Reshape, not two.
In a fully connected layer an activation is [N, C], and a convolution without groups is a Gemm.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgekron.algebra import StructureError
from edgekron.algebra.steps import Bias, Conv, ConvTranspose, MatMul, Shuffle, Step, Weight
from edgekron.errors import UserError
from edgekron.graph.nodes import add_initializer, conv_attributes, conv_transpose_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.algebra import Pair
    from edgekron.graph.factorized import Factorized

#: Repeated weights up to this size, in bytes, are stored repeated; larger ones are stored once and tiled.
TILED_FROM = 10 * 1024


def render(graph: ir.Graph, x: ir.Value, size: Pair, factorized: Factorized, steps: Sequence[Step]) -> list[ir.Node]:
    """The nodes that run ``steps`` on the value ``x`` of height and width ``size``; initializers go to ``graph``.

    The last node's output has the shape of the layer's output. The nodes are not inserted.
    """
    renderer = _Renderer(graph, x, size, factorized, sole=len(steps) == 1)
    for step in steps:
        match step:
            case Shuffle():
                renderer.shuffle(step)
            case Conv():
                renderer.convolve(step)
            case ConvTranspose():
                renderer.convolve_transposed(step)
            case MatMul():
                renderer.multiply(step)
            case Bias():
                renderer.add_bias(step)
    return renderer.finish()


def lowered(factorized: Factorized, forms: Sequence[str] | None = None) -> tuple[Step, ...]:
    """The steps of a layer in ONNX: in ``forms``, else in the layer's own forms for "onnx", else in the defaults.

    Raises ``UserError`` for a form that is unknown or not exact for its stage.
    """
    try:
        return factorized.steps("onnx", forms)
    except StructureError as error:
        raise UserError(f"layer {factorized.layer}: {error}") from error


def depends_on_size(steps: Sequence[Step]) -> bool:
    """Whether a convolution's steps include a reshape, which is exact for one height and width alone."""
    return any(isinstance(step, Shuffle | MatMul) or getattr(step, "fold", 1) > 1 for step in steps)


class _Renderer:
    """The value so far, its view (all dimensions behind the first), and the channels and size behind the view."""

    def __init__(self, graph: ir.Graph, x: ir.Value, size: Pair, factorized: Factorized, *, sole: bool) -> None:
        self.graph, self.value, self.size = graph, x, size
        self.factorized = factorized
        self.linear = factorized.kind == "linear"
        self.channels = factorized.network.total("g") * factorized.network.total("c")
        self.view = self._natural()
        self.nodes: list[ir.Node] = []
        self.sole = sole
        self.stages = 0

    def shuffle(self, step: Shuffle) -> None:
        pixels = () if self.linear else (math.prod(self.size),)
        self._reshape((*step.shape, *pixels))
        order = [0, *(axis + 1 for axis in step.order), *([len(step.order) + 1] if pixels else [])]
        self._append("Transpose", [self.value], [ir.AttrInt64s("perm", order)])
        self.view = (*(step.shape[axis] for axis in step.order), *pixels)

    def convolve(self, step: Conv) -> None:
        bias = [] if step.bias is None else [self._bias(step.bias)]
        channels = self.channels // step.fold
        outputs = step.weight.shape[0]
        if self.linear and step.groups == 1:
            self._reshape((channels,))
            weight = self._matrix(step.weight, (outputs, channels))
            self._append("Gemm", [self.value, weight, *bias], [ir.AttrInt64("transB", 1)])
            self.view = (outputs,)
        else:
            self._reshape((channels, *self.size))
            weight = self._repeated(step.weight)
            attributes = conv_attributes(step.geometry, step.groups, step.weight.shape[2:])
            self._append("Conv", [self.value, weight, *bias], list(attributes.values()))
            window = (step.weight.shape[2], step.weight.shape[3])
            self.size = step.geometry.output_size(self.size, window)
            self.view = (outputs, *self.size)
        self.channels = outputs * step.fold

    def convolve_transposed(self, step: ConvTranspose) -> None:
        bias = [] if step.bias is None else [self._bias(step.bias)]
        window = (step.weight.shape[2], step.weight.shape[3])
        self._reshape((self.channels // step.fold, *self.size))
        attributes = conv_transpose_attributes(step.geometry, step.groups, window)
        self._append("ConvTranspose", [self.value, self._repeated(step.weight), *bias], list(attributes.values()))
        self.size = step.geometry.output_size(self.size, window)
        self.view = (step.outputs, *self.size)
        self.channels = step.outputs * step.fold

    def multiply(self, step: MatMul) -> None:
        new, contracted = step.weight.shape
        columns = step.trailing * math.prod(self.size)
        self._reshape((contracted, columns))
        weight = self._stored(step.weight.evaluate(self.factorized.tensors))
        self._append("MatMul", [weight, self.value])
        self.view = (new, columns)
        self.channels = new * step.trailing

    def add_bias(self, step: Bias) -> None:
        self._reshape(self._natural())
        self._append("Add", [self.value, self._bias(step.order, trailing=len(self.view) - 1)])

    def finish(self) -> list[ir.Node]:
        self._reshape(self._natural())
        return self.nodes

    def _natural(self) -> tuple[int, ...]:
        return (self.channels,) if self.linear else (self.channels, *self.size)

    def _bias(self, order: Shuffle, trailing: int = 0) -> ir.Value:
        """The layer's bias in ``order``, with ``trailing`` axes of size one behind."""
        if self.factorized.bias is None:
            raise AssertionError(f"the steps of layer {self.factorized.layer} add a bias it does not have")
        vector = order.apply(self.factorized.bias).reshape(-1, *(1,) * trailing)
        return add_initializer(self.graph, f"{self.factorized.layer}.bias", vector)

    def _append(self, op_type: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr] = ()) -> None:
        name = f"{self.factorized.layer}.{len(self.nodes)}.{op_type}"
        node = ir.Node("", op_type, inputs, attributes, name=name)
        node.outputs[0].name = name
        self.nodes.append(node)
        self.value = node.outputs[0]

    def _reshape(self, view: tuple[int, ...]) -> None:
        if view == self.view:
            return
        shape = self._shape((-1, *view))
        self._append("Reshape", [self.value, shape])
        self.view = view

    def _shape(self, dims: Sequence[int]) -> ir.Value:
        name = f"{self.factorized.layer}.{len(self.nodes)}.shape"
        return add_initializer(self.graph, name, np.array(dims, dtype=np.int64))

    def _weight_name(self, suffix: str = "weight") -> str:
        stem = self.factorized.layer if self.sole else f"{self.factorized.layer}.stage{self.stages}"
        return f"{stem}.{suffix}"

    def _stored(self, array: np.ndarray) -> ir.Value:
        value = add_initializer(self.graph, self._weight_name(), array.astype(np.float32, copy=False))
        self.stages += 1
        return value

    def _matrix(self, weight: Weight, shape: tuple[int, int]) -> ir.Value:
        if weight.computed:
            return self._computed(weight, shape)
        return self._stored(weight.evaluate(self.factorized.tensors).reshape(shape))

    def _computed(self, weight: Weight, shape: tuple[int, ...]) -> ir.Value:
        """An Einsum of the stored factors, which runtimes fold into a constant when they load the file."""
        tensors = [
            add_initializer(self.graph, f"{self.factorized.layer}.factor{i}", tensor)
            for i, tensor in zip(weight.factors, weight.operands(self.factorized.tensors), strict=True)
        ]
        name = self._weight_name()
        self.stages += 1
        einsum = ir.Node("", "Einsum", tensors, [ir.AttrString("equation", weight.equation)], name=f"{name}.Einsum")
        einsum.outputs[0].name = f"{name}.split"
        reshape = ir.Node("", "Reshape", [einsum.outputs[0], self._shape(shape)], name=f"{name}.Reshape")
        reshape.outputs[0].name = name
        self.nodes += [einsum, reshape]
        return reshape.outputs[0]

    def _repeated(self, weight: Weight) -> ir.Value:
        """The weight; a factor that is repeated in it is stored once and tiled if that saves space."""
        if weight.computed:
            return self._computed(weight, weight.shape)
        repeats = [size for kind, size in weight.constants if kind == "ones" and size > 1]
        if not repeats or any(kind != "ones" for kind, _ in weight.constants):
            return self._stored(weight.evaluate(self.factorized.tensors))
        if math.prod(weight.shape) * 4 <= TILED_FROM:
            return self._stored(weight.evaluate(self.factorized.tensors))
        once, tiles = _factor_and_tiles(weight, self.factorized.tensors)
        base = add_initializer(self.graph, self._weight_name("factor"), once)
        whole = self._weight_name()
        self.stages += 1
        tile = ir.Node("", "Tile", [base, self._shape(tiles)], name=f"{whole}.Tile")
        self.nodes.append(tile)
        if once.ndim != len(weight.shape):
            reshape = ir.Node("", "Reshape", [tile.outputs[0], self._shape(weight.shape)], name=f"{whole}.Reshape")
            tile.outputs[0].name = f"{whole}.tiled"
            self.nodes.append(reshape)
        self.nodes[-1].outputs[0].name = whole
        return self.nodes[-1].outputs[0]


def _factor_and_tiles(weight: Weight, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The factor without its repetitions, and how often each of its dimensions is repeated.

    If the repeats are outermost, the factor has the rank of the weight. Otherwise the factor has one dimension for each
    axis up to the last repeated one, and the tiled array still has to be reshaped.
    """
    terms, output = weight.equation.split("->")
    operands = terms.split(",")
    ones = {letters: size for letters, (_, size) in zip(operands[len(weight.factors) :], weight.constants, strict=True)}
    sizes = {
        letter: size
        for letters, index in zip(operands, weight.factors, strict=False)
        for letter, size in zip(letters, tensors[index].shape, strict=True)
    }
    repeated = [letter in ones for letter in output]
    count = sum(repeated)
    single = replace(weight, constants=tuple((kind, 1) for kind, _ in weight.constants))
    if all(repeated[:count]):
        times = math.prod(ones.values())
        shape = (weight.shape[0] // times, *weight.shape[1:])
        return replace(single, shape=shape).evaluate(tensors), (times, *(1 for _ in shape[1:]))
    last = max(i for i, flag in enumerate(repeated) if flag)
    shape = (*(1 if c in ones else sizes[c] for c in output[: last + 1]), -1)
    tiles = (*(ones.get(c, 1) for c in output[: last + 1]), 1)
    return replace(single, shape=shape).evaluate(tensors), tiles
