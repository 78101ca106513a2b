"""The algebra: a kernel as a network of small factors, and the convolutions that such a network is lowered to.

``network`` holds factors over named axes; ``lowering`` turns an order of contraction into steps that every runtime has.
"""

from .network import SPATIAL, FactorNetwork, Geometry, Padding, Pair, Stage, StructureError, dense_macs

__all__ = ["SPATIAL", "FactorNetwork", "Geometry", "Padding", "Pair", "Stage", "StructureError", "dense_macs"]
