"""The outcome of a tuning: its conditions, the results and choices of all layers, and the whole network's results.

``tune`` measures and chooses every layer alone; ``checked`` adds the ``WholeNetwork`` of every target, and changes the
choices to its fastest variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekron.runtimes.statistics import Interval

from .results import Choice, Result, ratio_from_json, ratio_to_json


@dataclass(frozen=True)
class Conditions:
    """The runtime, processor and settings of a measurement; under other conditions it is measured again."""

    runtime: str
    version: str
    delegate: str
    threads: int
    clock: str
    type: str
    processor: str | None
    features: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class WholeNetwork:
    """The dense network's seconds on one runtime, and how many times faster each variant of the network is."""

    seconds: float
    ratios: Mapping[str, Interval]

    @property
    def fastest(self) -> str | None:
        """The variant to take: the first, unless another is faster beyond doubt; None if all lose to the dense network.

        Beyond doubt means that a variant's interval lies above 1, and above the estimate of the variant replaced.
        """
        best: str | None = None
        for name, one in self.ratios.items():
            if one.low > 1.0 and (best is None or one.low > self.ratios[best].value):
                best = name
        return best

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        ratios = {name: ratio_to_json(one) for name, one in self.ratios.items()}
        return {"dense_ms": 1e3 * self.seconds, "variants": ratios}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WholeNetwork:
        """The inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        ratios = {name: ratio_from_json(one) for name, one in data["variants"].items()}
        return cls(float(data["dense_ms"]) / 1e3, ratios)


@dataclass(frozen=True)
class Tuning:
    """``conditions`` by target, ``results`` by layer and target, the ``choices`` by layer, and ``network`` by target.

    ``measured`` counts the measurements that were not in the cache. ``network`` is empty until the whole network was
    measured.
    """

    conditions: Mapping[str, Conditions]
    results: Mapping[str, Mapping[str, Result]]
    choices: Mapping[str, Choice]
    measured: int = 0
    network: Mapping[str, WholeNetwork] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The evidence as plain data, for the report of a compressed folder."""
        layers = {
            name: {
                "order": list(self.choices[name].order),
                "forms": {target: list(forms) for target, forms in self.choices[name].forms.items()},
                "measured": {target: result.to_json() for target, result in results.items()},
            }
            for name, results in self.results.items()
        }
        return {
            "machine": {target: conditions.to_json() for target, conditions in self.conditions.items()},
            "definition": "ratio: times as fast as the dense layer, in surroundings like its own; interval: 95 %, "
            "bootstrap over rounds; a way is chosen where its interval lies above 1",
            "layers": layers,
            "network": {
                target: {"chosen": whole.fastest or "dense", **whole.to_json()}
                for target, whole in self.network.items()
            },
        }
