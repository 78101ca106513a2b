"""The cost of a layer as it is in the hub: multiply-accumulates for one image, and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekron.algebra.lowering import WHOLE

if TYPE_CHECKING:
    from .layers import Layer


def cost(layer: Layer) -> dict[str, int]:
    """{"macs": MACs for one image, "parameters": number of weights} of a layer as it is in the hub."""
    if layer.factorized is not None:
        network = layer.factorized.network
        macs = network.macs(layer.factorized.order, layer.input_size, layer.geometry)
        if is_whole(layer.factorized.forms):
            macs = layer.dense_macs
        return {"macs": macs, "parameters": network.parameters}
    return {"macs": layer.dense_macs, "parameters": layer.dense_parameters}


def is_whole(forms: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every target runs the dense kernel, stored or expanded."""
    return bool(forms) and all(form in WHOLE for chosen in forms.values() for form in chosen)
