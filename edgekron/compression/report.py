"""The report of a compression: what each layer was, what it became, and what the network came to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgekron.errors import UserError
from edgekron.graph.cost import Cost, cost

if TYPE_CHECKING:
    from edgekron.graph import Layer
    from edgekron.pruning import Pruning

#: What the figures of a report are, for its readers.
DEFINITIONS = {
    "macs": "multiply-accumulates of convolutions and fully connected layers for one image",
    "parameters": "stored weights of these layers, without bias",
    "error": "squared error of the layer's outputs on held-out calibration images, over their variance; "
    "without data, squared error of the kernel over its squared norm",
    "channels": "of a layer of a pruned network, what is left of its outputs and inputs, and what there was",
    "degeneracy": "of CP: root of the summed squared norms of the terms over the kernel's norm; about 1 unless "
    "terms cancel",
}


@dataclass(frozen=True)
class ChannelCounts:
    """[left, of] output and input channels of a layer of a pruned network."""

    outputs: tuple[int, int]
    inputs: tuple[int, int]


@dataclass(frozen=True)
class LayerReport:
    """One layer before and after.

    ``kernel`` is the shape of the original kernel, None where the weights are not constant; ``method`` a family of
    structures, a criterion for pruning or "dense", with the ``reason``; ``compressed`` the cost now, None where it is
    that of the original. ``error`` is that of the chosen ``fit`` or ``repair``, ``tried`` those of all that were tried.
    """

    kernel: tuple[int, ...] | None
    dense: Cost
    method: str = "dense"
    reason: str = ""
    compressed: Cost | None = None
    shape: str = ""
    rank: tuple[int, ...] = ()
    error: float | None = None
    fit: str = ""
    repair: str = ""
    tried: Mapping[str, float] = field(default_factory=dict)
    degeneracy: float | None = None
    channels: ChannelCounts | None = None

    @property
    def now(self) -> Cost:
        """The cost of the layer as it is."""
        return self.compressed or self.dense

    def without_errors(self) -> LayerReport:
        """The same, after other values took the place of those that the errors were of."""
        return dataclasses.replace(self, error=None, fit="", repair="", tried={}, degeneracy=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data; what does not apply to the layer is left out."""
        found: dict[str, Any] = {"kernel": None if self.kernel is None else list(self.kernel)}
        for entry in dataclasses.fields(self)[1:]:
            value = getattr(self, entry.name)
            if dataclasses.is_dataclass(value):
                value = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(value).items()}
            if value not in (None, "", (), {}) or entry.name in ("method", "reason"):
                found[entry.name] = dict(value) if isinstance(value, Mapping) else value
        if self.rank:
            found["rank"] = self.rank[0] if len(self.rank) == 1 else list(self.rank)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerReport:
        """What ``to_json`` gave. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for other data."""
        given = dict(data)
        given["kernel"] = None if given["kernel"] is None else tuple(map(int, given["kernel"]))
        given["dense"] = _cost(given["dense"])
        given["compressed"] = _cost(given["compressed"]) if "compressed" in given else None
        rank = given.get("rank", ())
        given["rank"] = tuple(map(int, rank)) if isinstance(rank, list | tuple) else (int(rank),)
        if "channels" in given:
            counts = given["channels"]
            given["channels"] = ChannelCounts(_pair(counts["outputs"]), _pair(counts["inputs"]))
        return cls(**given)


@dataclass(frozen=True)
class Total:
    """A network's MACs or parameters before and after."""

    dense: int
    compressed: int

    @property
    def ratio(self) -> float:
        """How many times fewer."""
        return self.dense / self.compressed if self.compressed else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"dense": self.dense, "compressed": self.compressed, "ratio": self.ratio}


@dataclass(frozen=True)
class CompressionReport:
    """What was done to a network, layer by layer, in the order of the network.

    ``training`` has one entry for each training since, ``tuning`` is the record of the measurements, and ``identity``
    the one hash of the network that the report is of (see ``edgekron.graph.identity``).
    """

    layers: Mapping[str, LayerReport]
    calibration_images: int
    training: tuple[Mapping[str, Any], ...] = ()
    tuning: Mapping[str, Any] | None = None
    identity: str = ""

    @property
    def macs(self) -> Total:
        """Multiply-accumulates of the network for one image."""
        return Total(*(sum(cost.macs for cost in side) for side in self._sides()))

    @property
    def parameters(self) -> Total:
        """Stored weights of the network's layers."""
        return Total(*(sum(cost.parameters for cost in side) for side in self._sides()))

    @property
    def uncounted(self) -> list[str]:
        """The layers whose multiply-accumulates are not known, as a size in the graph is not."""
        return [name for name, row in self.layers.items() if row.dense.parameters and not row.dense.macs]

    def _sides(self) -> tuple[list[Cost], list[Cost]]:
        return [row.dense for row in self.layers.values()], [row.now for row in self.layers.values()]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with definitions of the figures; see docs/report.schema.json."""
        found: dict[str, Any] = {
            "definitions": DEFINITIONS,
            "calibration_images": self.calibration_images,
            "totals": {"macs": self.macs.to_json(), "parameters": self.parameters.to_json()},
            "layers": {name: row.to_json() for name, row in self.layers.items()},
            "identity": self.identity,
        }
        if self.training:
            found["training"] = [dict(entry) for entry in self.training]
        if self.tuning is not None:
            found["tuning"] = dict(self.tuning)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any], name: str = "the report") -> CompressionReport:
        """What ``to_json`` gave; ``name`` is its file, for messages. Raises ``UserError``."""
        try:
            return cls(
                {layer: LayerReport.from_json(row) for layer, row in data["layers"].items()},
                int(data["calibration_images"]),
                tuple(dict(entry) for entry in data.get("training", ())),
                dict(data["tuning"]) if data.get("tuning") is not None else None,
                str(data.get("identity", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{name} is not a report that 'edgekron compress' wrote; compress the model again."
            ) from None


def dense_row(layer: Layer, reason: str) -> LayerReport:
    """The row of a layer of the original network that nothing was done to yet, with the reason."""
    return LayerReport(layer.kernel_shape if layer.has_kernel else None, cost(layer), reason=reason)


def with_pruning(
    rows: Mapping[str, LayerReport], before: Mapping[str, Layer], after: Mapping[str, Layer], pruning: Pruning
) -> dict[str, LayerReport]:
    """The rows with what pruning did: the channels left, the cost, and the error after the repair."""
    return {name: _pruned(row, before[name], after[name], pruning) for name, row in rows.items()}


def _pruned(row: LayerReport, old: Layer, new: Layer, pruning: Pruning) -> LayerReport:
    if row_method := pruning.kept.get(old.name):
        row = dataclasses.replace(row, method=row_method[1])
    if new.dense_parameters < old.dense_parameters or new.dense_macs < old.dense_macs:
        counts = ChannelCounts(_counts(new, old, 0), _counts(new, old, 1))
        (made, outputs), (read, inputs) = counts.outputs, counts.inputs
        row = dataclasses.replace(
            row,
            channels=counts,
            compressed=Cost(new.dense_macs, new.dense_parameters),
            reason=f"makes {made} of {outputs} channels, reads {read} of {inputs}",
        )
    repaired = pruning.repairs.get(old.name)
    if repaired is None:
        return row
    return dataclasses.replace(row, error=repaired.error, repair=repaired.repair, tried=repaired.tried)


def _counts(new: Layer, old: Layer, axis: int) -> tuple[int, int]:
    """[left, of] channels along an axis of the kernel."""
    left, of = (layer.kernel_shape[axis] * (layer.groups if axis else 1) for layer in (new, old))
    return left, of


def _cost(data: Mapping[str, Any]) -> Cost:
    return Cost(int(data["macs"]), int(data["parameters"]))


def _pair(data: Any) -> tuple[int, int]:
    left, of = data
    return int(left), int(of)
