"""Torch modules of a hub: a factorized layer, a user's own module with factorized layers, and a whole graph.

    module = GraphModule(hub)                       # any network, without the class that it was defined by
    model = factorize_module(model, hub)            # a module of the user's own class, with factorized layers

All of them can be trained by any loop; ``edgekron.training`` has one.
"""

from .cost import Cost, module_cost
from .factorize import factorize_module
from .foldable_norm import FoldableNorm
from .graph_module import GraphModule
from .layers import (
    FactorizedConv1d,
    FactorizedConv2d,
    FactorizedConvTranspose1d,
    FactorizedConvTranspose2d,
    FactorizedLayer,
    FactorizedLinear,
    factorized_layer,
)

__all__ = [
    "Cost",
    "FactorizedConv1d",
    "FactorizedConv2d",
    "FactorizedConvTranspose1d",
    "FactorizedConvTranspose2d",
    "FactorizedLayer",
    "FactorizedLinear",
    "FoldableNorm",
    "GraphModule",
    "factorize_module",
    "factorized_layer",
    "module_cost",
]
