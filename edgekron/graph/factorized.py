"""A factorized layer as one value: the factors, how they form the kernel, and how the layer moves over its input.

In the hub it is one node of the domain ``edgekron`` with inputs (x, factor 0, factor 1, ..., bias). All that is not a
tensor is in the node's metadata under ``edgekron``, as JSON, so that a file written by ``Hub.save`` is read back whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekron.algebra import FactorNetwork, Geometry, StructureError
from edgekron.algebra.lowering import FORMS, default_forms, lower, valid_forms
from edgekron.algebra.steps import Step
from edgekron.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

DOMAIN = "edgekron"
METADATA_KEY = "edgekron"
#: What a layer is exported to, each with forms of its own.
TARGETS = ("onnx", "tflite")

Kind = Literal["conv", "linear"]


@dataclass(frozen=True, eq=False)
class Factorized:
    """The factors of one layer.

    ``tensors`` are float32, one for each factor of ``network``, in its order; ``bias`` is [F] or None. ``order`` is the
    contraction order and ``forms`` the form of each stage, for each export target ("onnx", "tflite"); a target that is
    not there gets its defaults. A linear layer has the kernel [F, C, 1, 1] and the plain geometry; a transposed
    convolution has those of the equivalent ordinary one (see ``edgekron.algebra``).

    Raises ``UserError`` when tensors, bias or order do not fit the network, or hold NaN or infinite values.
    """

    layer: str
    kind: Kind
    network: FactorNetwork
    tensors: tuple[np.ndarray, ...]
    bias: np.ndarray | None
    order: tuple[int, ...]
    geometry: Geometry = field(default_factory=Geometry)
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = [self.network.factor_shape(i) for i in range(len(self.network.axes))]
        shapes = [tuple(t.shape) for t in self.tensors]
        if shapes != wanted:
            raise UserError(
                f"layer {self.layer}: the factors {self.network.factors!r} have shapes {wanted}, not {shapes}"
            )
        if sorted(self.order) != list(range(len(shapes))):
            raise UserError(f"layer {self.layer}: order {list(self.order)} is no permutation of {len(shapes)} factors")
        outputs = self.network.kernel_shape[0]
        if self.bias is not None and self.bias.shape != (outputs,):
            raise UserError(f"layer {self.layer}: the bias has shape {self.bias.shape}, not ({outputs},)")
        values = (*self.tensors, *([] if self.bias is None else [self.bias]))
        if not all(np.isfinite(value).all() for value in values):
            raise UserError(f"layer {self.layer}: its factors or bias contain NaN or infinite values")
        if self.kind == "linear" and (
            self.geometry != Geometry() or self.network.kernel_shape[2:] != (1, 1) or self.network.total("g") > 1
        ):
            raise UserError(f"layer {self.layer} is fully connected; it has no window, stride, padding or groups")

    def kernel(self) -> np.ndarray:
        """The dense kernel [F, C / groups, kh, kw], summed in float64 and rounded to float32."""
        exact = self.network.expand([tensor.astype(np.float64) for tensor in self.tensors])
        return np.ascontiguousarray(exact, dtype=np.float32)

    def steps(self, target: str, forms: Sequence[str] | None = None) -> tuple[Step, ...]:
        """The lowered steps for ``target``: in ``forms``, else in the layer's own forms for it, else in the defaults.

        Raises ``StructureError`` for a form that is unknown, or not exact for its stage on this target.
        """
        stages = self.network.stages(self.order, self.geometry)
        chosen = tuple(forms or self.forms.get(target) or default_forms(stages, target))
        if target == "tflite" and chosen == ("expand",):
            raise StructureError(
                "form 'expand' needs a runtime that computes constants when it loads a file, and TFLite would expand "
                "the kernel for every image; choose 'dense' for tflite in the plan, or a structure that saves MACs"
            )
        for stage, form in zip(stages, chosen, strict=False):
            valid = valid_forms(stage, target)
            if form in FORMS and form not in valid and stage.size(stage.carried) > 1:
                raise StructureError(
                    f"form {form!r} is not exact in {target} for factor {stage.factor} of {self.network.factors!r} "
                    f"with stride {stage.geometry.stride}; use {' or '.join(valid)}"
                )
        return lower(self.network, self.order, self.geometry, chosen, bias=self.bias is not None)

    def metadata(self) -> str:
        """Everything but the tensors, as JSON."""
        geometry = self.geometry
        return json.dumps(
            {
                "layer": self.layer,
                "kind": self.kind,
                "factors": self.network.factors,
                "sizes": dict(self.network.sizes),
                "order": list(self.order),
                "stride": list(geometry.stride),
                "dilation": list(geometry.dilation),
                "padding": [list(pair) for pair in geometry.padding],
                "upsample": list(geometry.upsample),
                "forms": {target: list(forms) for target, forms in self.forms.items()},
            }
        )

    def to_bytes(self) -> bytes:
        """All of it, for another process: arrays in numpy's format, the metadata first."""
        stream = BytesIO()
        np.savez(stream, np.array(self.metadata()), *self.tensors, *([] if self.bias is None else [self.bias]))
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Factorized:
        """What ``to_bytes`` wrote."""
        with np.load(BytesIO(data)) as file:
            metadata, *tensors = [file[name] for name in file.files]
        return _parse(str(metadata), tensors)


def is_factorized(node: ir.Node) -> bool:
    """Whether a node of a hub is a factorized layer."""
    return node.domain == DOMAIN and METADATA_KEY in node.metadata_props


def layer_of(node: ir.Node) -> str:
    """Name of the layer that a factorized node stands for, without reading its tensors."""
    return str(json.loads(node.metadata_props[METADATA_KEY])["layer"])


def kind_of(node: ir.Node) -> str:
    """Kind of the layer that a factorized node stands for, "conv" or "linear", without reading its tensors."""
    return str(json.loads(node.metadata_props[METADATA_KEY])["kind"])


def read_node(node: ir.Node) -> Factorized:
    """The factorized layer that a node of a hub stands for. Raises ``UserError`` when its metadata is damaged."""
    try:
        return _parse(node.metadata_props[METADATA_KEY], [_constant(value) for value in node.inputs[1:]])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"node {node.name} claims to be a factorized layer but its metadata is damaged ({error}); "
            "compress the network again"
        ) from error


def _parse(metadata: str, tensors: Sequence[np.ndarray]) -> Factorized:
    """The layer of ``Factorized.metadata`` with its factors and, if it has one, its bias."""
    data: dict[str, Any] = json.loads(metadata)
    network = FactorNetwork(data["factors"], data["sizes"])
    (top, bottom), (left, right) = data["padding"]
    spread = data.get("upsample", (1, 1))
    return Factorized(
        layer=data["layer"],
        kind=data["kind"],
        network=network,
        tensors=tuple(tensors[: len(network.axes)]),
        bias=tensors[len(network.axes)] if len(tensors) > len(network.axes) else None,
        order=tuple(data["order"]),
        geometry=Geometry(
            (data["stride"][0], data["stride"][1]),
            (data["dilation"][0], data["dilation"][1]),
            ((top, bottom), (left, right)),
            (spread[0], spread[1]),
        ),
        forms={target: tuple(forms) for target, forms in data["forms"].items()},
    )


def _constant(value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise ValueError(f"input {value.name if value else ''} is no initializer")
    return value.const_value.numpy()
