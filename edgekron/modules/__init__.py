"""Torch modules of a hub: a factorized layer, a user's own module with factorized layers, and a whole graph.

    module = GraphModule(hub)                       # any network, without the class that it was defined by
    model = factorize_module(model, hub)            # a module of the user's own class, with factorized layers

Both can be trained by any loop; ``edgekron.training`` has one. Each name is imported when it is first asked for, so
that counting the costs of a plain module loads nothing of the graph.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cost import ModuleCost, module_cost
    from .factorize import factorize_module
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
    "FactorizedConv1d",
    "FactorizedConv2d",
    "FactorizedConvTranspose1d",
    "FactorizedConvTranspose2d",
    "FactorizedLayer",
    "FactorizedLinear",
    "GraphModule",
    "ModuleCost",
    "factorize_module",
    "factorized_layer",
    "module_cost",
]

_HOMES = {"ModuleCost": "cost", "module_cost": "cost", "GraphModule": "graph_module", "factorize_module": "factorize"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'edgekron.modules' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'layers')}", __name__), name)
