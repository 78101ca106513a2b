"""Puts another kernel and bias into a layer of a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekron.graph.nodes import adjoint_kernel

from .channels import put_constant

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer


def write_layer(hub: Hub, layer: Layer, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Gives ``layer``, one of ``hub``'s own, the kernel [F, C / groups, kh, kw] and the bias [F].

    The layer must not be factorized. Raises ``ValueError`` for a MatMul, which has no bias.
    """
    node = layer.node
    if node.op_type == "MatMul":
        raise ValueError(f"layer {layer.name} is a MatMul, which has no bias")
    weight = kernel
    if layer.kind == "linear":
        weight = kernel.reshape(kernel.shape[:2])
        weight = weight if node.attributes.get_int("transB", 0) else weight.T
    elif layer.geometry.transposed:
        weight = adjoint_kernel(kernel, layer.groups)
    put_constant(hub.model, node, 1, np.ascontiguousarray(weight, np.float32))
    put_constant(hub.model, node, 2, np.ascontiguousarray(bias, np.float32), f"{layer.name}.bias")
