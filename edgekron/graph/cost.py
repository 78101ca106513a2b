"""What a layer of a hub costs as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekron.algebra.lowering import WHOLE

from .layers import Layer


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates for one image, and stored weights without the bias."""

    macs: int
    parameters: int


def cost(layer: Layer) -> Cost:
    """The cost of a layer, factorized or dense."""
    if layer.factorized is None:
        return Cost(layer.dense_macs, layer.dense_parameters)
    network = layer.factorized.network
    if is_whole(layer.factorized.forms):
        return Cost(layer.dense_macs, network.parameters)
    return Cost(network.macs(layer.factorized.order, layer.input_size, layer.geometry), network.parameters)


def is_whole(forms: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every target runs the dense kernel, stored or expanded."""
    return bool(forms) and all(form in WHOLE for chosen in forms.values() for form in chosen)
