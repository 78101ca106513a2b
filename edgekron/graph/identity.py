"""The identity of a network: hashes of everything that makes a compressed network the one that it is.

    structure   the factors of each factorized layer: their axes and ranks
    kept        the channels that pruning left
    values      kernels, factors and biases
    lowering    order of contraction and forms of each factorized layer: how it runs, not what it computes

The identity is computed from the hub, whenever it is asked for, and travels in the metadata of hubs and exported files.
Two versions of a network differ by decomposition, pruning, training or tuning: their identities say by which. A file
that EdgeKron did not write has no identity; it is taken for the original network, neither factorized nor pruned.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.algebra.lowering import default_forms

from .factorized import TARGETS, Factorized, is_factorized, read_node
from .layers import layer_names

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The metadata in which hubs and ONNX files carry the identity.
IDENTITY_KEY = "edgekron.identity"
#: The metadata in which a pruned hub says how many output channels its layers kept, and a hash of which ones went.
KEPT_KEY, REMOVED_KEY = "edgekron.kept", "edgekron.removed"

#: What identities can differ by.
DECOMPOSITION, PRUNING, TRAINING, TUNING = "decomposition", "pruning", "training", "tuning"

#: Hexadecimal digits of each hash: a chance of 1 in 10^14 that two of a thousand networks are taken for one.
_DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """Hashes of a network; empty where there is nothing to hash, as ``kept`` of a network that is not pruned."""

    structure: str = ""
    kept: str = ""
    values: str = ""
    lowering: str = ""

    @property
    def original(self) -> bool:
        """Whether the network is neither factorized nor pruned."""
        return not self.structure and not self.kept

    @property
    def digest(self) -> str:
        """The one hash of all of it."""
        return _hash([self.structure, self.kept, self.values, self.lowering])

    def to_text(self) -> str:
        """For the metadata of a file."""
        return json.dumps({key: value for key, value in asdict(self).items() if value}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Identity | None:
        """What ``to_text`` gave; None for no text, or one that is no identity."""
        try:
            found = json.loads(text or "")
        except ValueError:
            return None
        known = set(cls.__dataclass_fields__)
        if (
            not isinstance(found, dict)
            or not set(found) <= known
            or not all(isinstance(v, str) for v in found.values())
        ):
            return None
        return cls(**found)


def identity_of(model: ir.Model) -> Identity:
    """The identity of a hub's graph."""
    layers = [read_node(node) for node in model.graph if is_factorized(node)]
    return Identity(
        _hash(f"{layer.layer}: {layer.network.factors} {sorted(layer.network.sizes.items())}" for layer in layers),
        _hash(f"{key} {model.metadata_props[key]}" for key in (KEPT_KEY, REMOVED_KEY) if key in model.metadata_props),
        _values(model.graph),
        _hash(f"{layer.layer}: {_lowering(layer)}" for layer in layers),
    )


def changes(old: Identity | None, new: Identity | None) -> tuple[str, ...]:
    """How two networks differ, as DECOMPOSITION, PRUNING, TRAINING and TUNING.

    Other factors or fewer channels bring other values and forms with them: these are named only where structure and
    channels are the same.
    """
    a, b = old or Identity(), new or Identity()
    found = [DECOMPOSITION] * (a.structure != b.structure) + [PRUNING] * (a.kept != b.kept)
    if found:
        return tuple(found)
    trained = bool(a.values and b.values) and a.values != b.values
    return tuple([TRAINING] * trained + [TUNING] * (a.lowering != b.lowering))


def _hash(texts: Iterable[str]) -> str:
    found = list(texts)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:_DIGITS] if any(found) else ""


def _values(graph: ir.Graph) -> str:
    """Of the constants of every layer, in the order of the network."""
    digest = hashlib.sha256()
    for node, name in layer_names(graph).items():
        digest.update(name.encode())
        for value in node.inputs[1:]:
            if value is not None and value.const_value is not None:
                digest.update(value.const_value.tobytes())
    return digest.hexdigest()[:_DIGITS]


def _lowering(layer: Factorized) -> str:
    """The order and the form of each stage for every target, whether they were said or are the defaults."""
    stages = layer.network.stages(layer.order, layer.geometry)
    forms = {target: tuple(layer.forms.get(target) or default_forms(stages, target)) for target in TARGETS}
    return f"{layer.order} {sorted(forms.items())}"
