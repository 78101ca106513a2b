"""The layers of a hub: every node with weights that could be, or are, factorized."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgekron.algebra import Geometry, Pair, dense_macs

from .factorized import Factorized, Kind, is_factorized, layer_of, read_node
from .kernels import DenseKernel, dense_kernel
from .values import float_constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer as the hub held it when the layer was asked for: later changes of the hub do not show here.

    ``weights`` is what the kernel is made of: the factors of a factorized layer, or the stored weight of an ordinary
    one; None for a weight that is not constant float32, or not that of an image layer. For a transposed convolution,
    the kernel and ``geometry`` are those of the equivalent ordinary one (see ``edgekron.algebra``). ``input`` and
    ``output`` are value names; the sizes are (h, w), (1, 1) for a fully connected layer. ``frozen_reason`` says why the
    layer cannot be factorized, as a verb phrase behind "it", and is None for a layer that can. ``macs_known`` is false
    where a size is not known, and ``dense_macs`` then 0.
    """

    name: str
    kind: Kind
    node: ir.Node
    weights: Factorized | DenseKernel | None
    bias: np.ndarray | None
    geometry: Geometry
    groups: int
    input: str
    output: str
    input_size: Pair
    output_size: Pair
    frozen_reason: str | None
    dense_macs: int
    dense_parameters: int
    macs_known: bool

    @property
    def factorized(self) -> Factorized | None:
        """The factors; None for an ordinary layer."""
        return self.weights if isinstance(self.weights, Factorized) else None

    @property
    def has_kernel(self) -> bool:
        """Whether the layer has a constant kernel."""
        return self.weights is not None

    @cached_property
    def kernel(self) -> np.ndarray | None:
        """The dense kernel [F, C / groups, kh, kw], [F, C, 1, 1] for a fully connected layer, always y = W x.

        None for a layer without a constant kernel. Factors are multiplied out at the first use; ``kernel_shape`` and
        ``has_kernel`` need no factors.
        """
        return None if self.weights is None else self.weights.kernel()

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape [F, C / groups, kh, kw]. Raises ``ValueError`` for a layer without a constant kernel."""
        if self.weights is None:
            raise ValueError(f"layer {self.name} has no constant kernel: it {self.frozen_reason}")
        return self.weights.network.kernel_shape if isinstance(self.weights, Factorized) else self.weights.kernel_shape


def layer_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """Every Conv, ConvTranspose, Gemm, MatMul by a constant and factorized node, in order, with its unique name."""
    names: dict[ir.Node, str] = {}
    taken: set[str] = set()
    for node in graph:
        if not _is_layer(node):
            continue
        stem = _stem(node)
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        names[node] = name
    return names


def describe(node: ir.Node, names: Mapping[ir.Node, str]) -> Layer:
    """The layer of one node; ``names`` are those of all layers of the graph."""
    return _factorized_layer(node, names[node]) if is_factorized(node) else _dense_layer(node, names)


def _is_layer(node: ir.Node) -> bool:
    if is_factorized(node) or (node.domain in ("", "ai.onnx") and node.op_type in ("Conv", "ConvTranspose", "Gemm")):
        return True
    if node.domain in ("", "ai.onnx") and node.op_type == "MatMul":
        weight = node.inputs[1]
        return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2
    return False


def _stem(node: ir.Node) -> str:
    if is_factorized(node):
        return layer_of(node)
    weight = node.inputs[1]
    if weight is not None and weight.is_initializer() and weight.name and weight.name.endswith(".weight"):
        return weight.name.removesuffix(".weight")
    return node.name or node.outputs[0].name or node.op_type


def _factorized_layer(node: ir.Node, name: str) -> Layer:
    factorized = read_node(node)
    return Layer(
        name=name,
        kind=factorized.kind,
        node=node,
        weights=factorized,
        bias=factorized.bias,
        geometry=factorized.geometry,
        groups=factorized.network.total("g"),
        input=_name(node.inputs[0]),
        output=_name(node.outputs[0]),
        input_size=_size(node.inputs[0]) or (0, 0),
        output_size=_size(node.outputs[0]) or (0, 0),
        frozen_reason=None,
        dense_macs=dense_macs(factorized.network.kernel_shape, _size(node.inputs[0]) or (0, 0), factorized.geometry),
        dense_parameters=math.prod(factorized.network.kernel_shape),
        macs_known=_size(node.inputs[0]) is not None,
    )


def _dense_layer(node: ir.Node, names: Mapping[ir.Node, str]) -> Layer:
    weight, kind = node.inputs[1], _kind(node)
    groups = node.attributes.get_int("group", 1) if kind == "conv" else 1
    stored = dense_kernel(node)
    attribute_reason = _attribute_reason(node, kind)
    if node.op_type == "ConvTranspose" and attribute_reason is not None:
        stored = None
    shape = None if stored is None else stored.kernel_shape
    bias, bias_reason = _bias(node, None if shape is None else shape[0])
    sizes = _size(node.inputs[0]), _size(node.outputs[0])
    reason = _weight_reason(node, weight, names) or attribute_reason or bias_reason
    if reason is None and kind == "conv" and shape is not None and groups > 1 and shape[1] == 1:
        reason = "is depthwise: one input channel for each filter leaves nothing to factorize"
    if reason is None and None in sizes:
        reason = "has an input of unknown size; load the model with its input shape"
    return Layer(
        name=names[node],
        kind=kind,
        node=node,
        weights=stored,
        bias=bias,
        geometry=_geometry(node, shape[2:]) if shape is not None and kind == "conv" else Geometry(),
        groups=groups,
        input=_name(node.inputs[0]),
        output=_name(node.outputs[0]),
        input_size=sizes[0] or (0, 0),
        output_size=sizes[1] or (0, 0),
        frozen_reason=reason,
        dense_macs=_dense_macs(node),
        dense_parameters=math.prod(_dims(weight)),
        macs_known=_dense_macs(node) > 0,
    )


def _kind(node: ir.Node) -> Kind:
    return "conv" if node.op_type in ("Conv", "ConvTranspose") else "linear"


def _dense_macs(node: ir.Node) -> int:
    """Multiply-accumulates for one image: each value is multiplied by every weight that shares an axis with it."""
    weight = _dims(node.inputs[1])
    if not weight:
        return 0
    if node.op_type == "ConvTranspose":
        return math.prod(_dims(node.inputs[0])[1:]) * math.prod(weight[1:])
    outputs = math.prod(_dims(node.outputs[0])[1:])
    if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1:
        return outputs * math.prod(weight[1:])
    return outputs * weight[0]


def _dims(value: ir.Value | None) -> list[int]:
    """All sizes of a value, the batch first; 0 for a size that is not known."""
    return [d if isinstance(d, int) else 0 for d in list(value.shape or ())] if value is not None else []


def _geometry(node: ir.Node, window: Sequence[int]) -> Geometry:
    top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    stride = node.attributes.get_ints("strides", (1, 1))
    dilation = node.attributes.get_ints("dilations", (1, 1))
    steps, dilations, padding = (stride[0], stride[1]), (dilation[0], dilation[1]), ((top, bottom), (left, right))
    if node.op_type == "Conv":
        return Geometry(steps, dilations, padding)
    extra = node.attributes.get_ints("output_padding", (0, 0))
    h, w = (
        (d * (k - 1) - before, d * (k - 1) - after + more)
        for d, k, (before, after), more in zip(dilations, window, padding, extra, strict=True)
    )
    return Geometry(dilation=dilations, padding=(h, w), upsample=steps)


def _bias(node: ir.Node, outputs: int | None) -> tuple[np.ndarray | None, str | None]:
    """The bias [F], or None and the reason why it cannot be handled; None twice for a layer without a bias."""
    if node.op_type == "MatMul" or len(node.inputs) < 3 or node.inputs[2] is None:
        return None, None
    array = float_constant(node.inputs[2])
    if array is None or outputs is None:
        return None, "has a bias that is not a constant of type float32"
    if array.size not in (1, outputs) or array.shape[-1:] not in ((), (1,), (outputs,)):
        return None, f"has a bias of another shape: {list(array.shape)}, not [{outputs}]"
    return np.array(np.broadcast_to(array.reshape(-1), (outputs,))), None


def _weight_reason(node: ir.Node, weight: ir.Value | None, names: Mapping[ir.Node, str]) -> str | None:
    maker = None if weight is None else weight.producer()
    if maker is not None and maker.op_type == "DequantizeLinear":
        return "is quantized already; open the file with --dequantize"
    if weight is None or weight.const_value is None:
        return "has weights that the graph computes, not constant ones"
    if weight.dtype != ir.DataType.FLOAT:
        return f"has {weight.const_value.dtype.numpy()} weights, not float32"
    others = [names.get(user, user.name or user.op_type) for user, _ in weight.uses() if user is not node]
    return f"shares its weights with {', '.join(sorted(set(others)))}" if others else None


def _attribute_reason(node: ir.Node, kind: Kind) -> str | None:
    if kind == "conv":
        rank = len(_dims(node.inputs[1]))
        if rank != 4:
            return f"is a {rank - 2}-dimensional convolution; only those of images are factorized"
        if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            return "pads by the size of its input, which is not known"
        return _crop_reason(node) if node.op_type == "ConvTranspose" else None
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) != 2:
        return f"acts on a tensor of {len(x.shape) if x and x.shape else 'unknown'} dimensions, not on [N, C]"
    attributes = node.attributes
    scaled = attributes.get_float("alpha", 1.0) != 1.0 or attributes.get_float("beta", 1.0) != 1.0
    if scaled or attributes.get_int("transA", 0) != 0:
        return "has a scaled or transposed operand: a Gemm's alpha, beta or transA is not the ordinary one"
    return None


def _crop_reason(node: ir.Node) -> str | None:
    """Why a transposed convolution has no equivalent ordinary one on a spread image; None where it has one."""
    if "output_shape" in node.attributes:
        return "states the shape of its output; export it with pads and output_padding"
    dilations, window = node.attributes.get_ints("dilations", (1, 1)), _dims(node.inputs[1])[2:]
    spans = [dilation * (k - 1) for dilation, k in zip(dilations, window, strict=True)]
    top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    if any(cut > span for cuts, span in zip(((top, bottom), (left, right)), spans, strict=True) for cut in cuts):
        return "crops more than its window reaches"
    stride = node.attributes.get_ints("strides", (1, 1))
    extra = node.attributes.get_ints("output_padding", (0, 0))
    if any(more >= step for more, step in zip(extra, stride, strict=True)):
        return "pads its output by a whole stride or more"
    return None


def _size(value: ir.Value | None) -> Pair | None:
    if value is None or value.shape is None:
        return None
    dims = value.shape.numpy() if value.shape.is_static() else tuple(value.shape)
    if len(dims) == 2:
        return 1, 1
    if len(dims) != 4:
        return None
    h, w = dims[2], dims[3]
    return (h, w) if isinstance(h, int) and isinstance(w, int) else None


def _name(value: ir.Value | None) -> str:
    if value is None or value.name is None:
        raise AssertionError("a layer of a hub has a named input and output")
    return value.name
