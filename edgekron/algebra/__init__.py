"""The algebra: a kernel as a network of small factors, and the convolutions that such a network is lowered to.

``network`` holds factors over named axes and contracts them in stages; ``lowering`` turns stages into the ``steps``
that every runtime has an operator for. Nothing here knows of ONNX, and torch is imported only for tensors of torch.
"""

from .lowering import FORMS, WHOLE, default_forms, lower, valid_forms
from .network import SPATIAL, FactorNetwork, Geometry, Padding, Pair, Stage, StructureError, dense_macs
from .steps import Bias, Conv, ConvTranspose, MatMul, Shuffle, Step, Weight, executed_macs

__all__ = [
    "FORMS",
    "SPATIAL",
    "WHOLE",
    "Bias",
    "Conv",
    "ConvTranspose",
    "FactorNetwork",
    "Geometry",
    "MatMul",
    "Padding",
    "Pair",
    "Shuffle",
    "Stage",
    "Step",
    "StructureError",
    "Weight",
    "default_forms",
    "dense_macs",
    "executed_macs",
    "lower",
    "valid_forms",
]
