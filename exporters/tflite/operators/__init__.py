"""One translator per ONNX operator; importing this package fills the table in ``registry``."""

from . import activation, arithmetic, conv, join, linear, normalization, pad, pool, reduce, shape, slicing

__all__ = [
    "activation",
    "arithmetic",
    "conv",
    "join",
    "linear",
    "normalization",
    "pad",
    "pool",
    "reduce",
    "shape",
    "slicing",
]
