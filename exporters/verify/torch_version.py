"""A torch module as a version: the inputs and outputs of its layers under the names that they have in its hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgekron.errors import UserError
from edgekron.graph.identity import Identity
from edgekron.graph.parts import joined_outputs
from edgekron.graph.passes.fold_batch_norm import folded_norms
from edgekron.modules.layers import FactorizedConv1d, FactorizedConvTranspose1d
from edgekron.modules.places import like, places, tensors_of, values_at

if TYPE_CHECKING:
    from edgekron.graph import Hub

#: Layers of [N, C, L], which the hub holds as images of a single row.
_OF_ROWS = (nn.Conv1d, nn.ConvTranspose1d, FactorizedConv1d, FactorizedConvTranspose1d)


class TorchVersion:
    """``module``, whose hub is ``hub``, in evaluation mode."""

    kind, precision = "torch", "float32"

    def __init__(self, module: nn.Module, hub: Hub) -> None:
        self.identity: Identity | None = hub.identity
        self.inputs, self.input_shape = hub.inputs, hub.input_shape
        self.input, self.outputs = hub.input_name, list(hub.output_names)
        self.joined = joined_outputs(hub.model.graph)
        self._module = module.eval()
        self._places = list(places(module, hub, folded_norms(hub.model)))
        self.inner = list(dict.fromkeys(name for place in self._places for name in (place.input, place.output)))

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs, by the names that they have in the hub."""
        with torch.no_grad():
            found = list(tensors_of(self._module(torch.from_numpy(x))))
        if len(found) != len(self.outputs):
            raise UserError(f"the module gives {len(found)} outputs and its graph {len(self.outputs)}; compare files.")
        return {name: y.numpy() for name, y in zip(self.outputs, found, strict=True)}

    def look(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """Inputs and outputs of the layers that run once; what has another shape in the hub is left out."""
        return values_at(self._module, self._places, torch.from_numpy(x))[0]

    def redo(self, x: np.ndarray, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The output of each layer for the layer's input among ``values`` (``x`` is the network's), by name."""
        values, made = {**values, self.input: x}, {}
        with torch.no_grad():
            for place in self._places:
                if place.input in values:
                    entry = torch.from_numpy(values[place.input])
                    row = isinstance(place.first, _OF_ROWS) and entry.ndim == 4
                    y = place.run(entry.squeeze(2) if row else entry)
                    made[place.output] = like(y.numpy(), place.output_shape)
        return made
