"""Writes a fully connected layer of two nodes as one: Add(MatMul(x, W), b) becomes Gemm(x, W, b), for x of [N, C]."""

from __future__ import annotations

import onnx_ir as ir

from edgekron.graph.nodes import replace_node


def gemm_from_matmul(model: ir.Model) -> None:
    """Fuses a MatMul by a constant matrix with the addition of a constant vector that alone uses it."""
    for add in list(model.graph):
        if add.op_type != "Add" or add.domain:
            continue
        for product, bias in (tuple(add.inputs), tuple(reversed(add.inputs))):
            matmul = product.producer() if product is not None else None
            if matmul is None or product is None or bias is None or not _fuses(matmul, product, bias):
                continue
            gemm = ir.Node("", "Gemm", [*matmul.inputs, bias], name=matmul.name)
            replace_node(add, [gemm])
            model.graph.remove(matmul, safe=True)
            break


def _fuses(matmul: ir.Node, product: ir.Value, bias: ir.Value) -> bool:
    if matmul.op_type != "MatMul" or matmul.domain or len(product.uses()) != 1 or product.is_graph_output():
        return False
    x, weight = matmul.inputs
    if x is None or x.shape is None or len(x.shape) != 2 or weight is None or weight.const_value is None:
        return False
    columns = tuple(weight.const_value.shape)[-1]
    vector = bias.const_value
    return vector is not None and len(weight.const_value.shape) == 2 and tuple(vector.shape) == (columns,)
