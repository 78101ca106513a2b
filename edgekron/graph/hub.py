"""``Hub``: a network as one ONNX graph in which a factorized layer is one node."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.files import write_file

from .extract import extract
from .factorized import Factorized, is_factorized, read_node
from .from_onnx import FORMAT, MARK, deserialize, is_hub, read_onnx
from .identity import IDENTITY_KEY, KEPT_KEY, Identity, identity_of
from .inputs import NetworkInput, network_inputs
from .layers import Layer, describe, layer_names
from .nodes import replace_by_dense, replace_by_factorized

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


class Hub:
    """A network between import and export; see ``edgekron.graph.load``.

    ``model`` is an ``onnx_ir.Model`` of opset 20 with one image input [N, C, H, W] (or [N, C]), N dynamic, explicit
    pads and no batch normalisation behind a convolution. It may be edited in place. H and W are known, also where the
    file left them open (see ``edgekron.graph.axes``); then no node depends on what they are.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.model.metadata_props[MARK] = FORMAT

    @classmethod
    def open(cls, path: str | Path) -> Hub:
        """Reads a file written by ``save``. Raises ``UserError`` when it is none."""
        return cls.read(read_onnx(Path(path)), Path(path))

    @classmethod
    def read(cls, proto: onnx.ModelProto, path: Path) -> Hub:
        """The hub of a file that was read already; see ``open``."""
        if not is_hub(proto):
            raise UserError(f"{path} is not a hub file of EdgeKron; load it as an ordinary ONNX model")
        hub = cls(deserialize(proto, path))
        for node in hub.model.graph:
            if is_factorized(node):
                read_node(node)
        return hub

    def save(self, path: str | Path, force: bool = False) -> None:
        """Writes the hub as an ONNX file that ONNX Runtime runs as it is. Raises ``UserError`` if ``path`` exists."""
        write_file(path, self.proto().SerializeToString(), force)

    def proto(self) -> onnx.ModelProto:
        """The hub as an ``onnx.ModelProto`` of its own, with its identity."""
        self.model.metadata_props[IDENTITY_KEY] = self.identity.to_text()
        return ir.serde.serialize_model(self.model)

    def copy(self) -> Hub:
        """An independent hub; the tensors, which are never changed in place, are shared."""
        return Hub(self.model.clone())

    @property
    def identity(self) -> Identity:
        """What the network is now, computed from its structure and values; see ``edgekron.graph.identity``."""
        return identity_of(self.model)

    @property
    def inputs(self) -> tuple[NetworkInput, ...]:
        """Name, type, shape and axes of every input."""
        return network_inputs(self.model)

    @property
    def input_name(self) -> str:
        """Name of the one input."""
        return str(self.model.graph.inputs[0].name)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch, [C, H, W]."""
        shape = self.model.graph.inputs[0].shape
        return tuple(d for d in list(shape or ())[1:] if isinstance(d, int))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(str(value.name) for value in self.model.graph.outputs)

    def layers(self) -> list[Layer]:
        """Every layer with weights, in topological order, whether it can be factorized or not."""
        names = layer_names(self.model.graph)
        return [describe(node, names) for node in names]

    def layer(self, name: str) -> Layer:
        """One layer by name. Raises ``UserError`` that lists the names if there is none."""
        names = layer_names(self.model.graph)
        for node, known in names.items():
            if known == name:
                return describe(node, names)
        raise UserError(f"there is no layer {name!r}; the layers are {', '.join(names.values())}")

    def factorize(self, layer_name: str, factorized: Factorized) -> None:
        """Replaces a layer, dense or already factorized, by a factorized one; its output keeps its name.

        Raises ``UserError`` when the layer cannot be factorized, or the factors make another kernel or geometry.
        """
        layer = self.layer(layer_name)
        if layer.frozen_reason is not None or not layer.has_kernel:
            raise UserError(f"layer {layer_name} cannot be factorized: it {layer.frozen_reason}")
        wanted = (layer_name, layer.kind, layer.kernel_shape, layer.groups, layer.geometry)
        network = factorized.network
        given = (factorized.layer, factorized.kind, network.kernel_shape, network.total("g"), factorized.geometry)
        if given != wanted:
            raise UserError(f"the factors are those of {given}; the layer is {wanted}")
        replace_by_factorized(self.model, layer.node, factorized)

    def restore(self, layer_name: str, original: Layer) -> None:
        """Replaces a factorized layer by the ordinary one with the kernel and bias of ``original``.

        Raises ``UserError`` when the layer is not factorized, or ``original`` has another kernel shape or geometry.
        """
        layer = self.layer(layer_name)
        factorized = layer.factorized
        if factorized is None:
            raise UserError(f"layer {layer_name} is not factorized")
        given = (original.kernel_shape, original.groups, original.geometry) if original.has_kernel else None
        wanted = (factorized.network.kernel_shape, layer.groups, layer.geometry)
        if given != wanted:
            raise UserError(f"layer {layer_name} is {wanted}; the layer {original.name} to restore it from is {given}")
        self.model.functions.pop(layer.node.op_identifier(), None)
        replace_by_dense(layer.node, replace(factorized, bias=original.bias), original.kernel)

    def dense(self) -> Hub:
        """A copy in which every factorized layer is the ordinary Conv or Gemm of its expanded kernel."""
        hub = self.copy()
        for node in list(hub.model.graph):
            if is_factorized(node):
                factorized = read_node(node)
                hub.model.functions.pop(node.op_identifier(), None)
                replace_by_dense(node, factorized)
        hub.model.opset_imports.pop("edgekron", None)
        return hub

    def submodel(self, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        """The nodes between the values ``inputs`` and ``outputs`` as a model of its own with a dynamic batch.

        Raises ``UserError`` for a name that the graph lacks, or when the outputs need more than these inputs.
        """
        return extract(self.model, inputs, outputs)


def kept_channels(model: ir.Model) -> dict[str, list[int]]:
    """[kept, of] output channels of the layers of a pruned hub; nothing for one that is not pruned."""
    found = json.loads(model.metadata_props.get(KEPT_KEY, "{}"))
    return {str(name): [int(n) for n in counts] for name, counts in found.items()}
