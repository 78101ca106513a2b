"""The findings about a dense network and its compressed version: plain data, to JSON and to a page.

Times are in seconds, memory in bytes, accuracies in percent. A figure that was not measured is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Every number that a page or a JSON file shows, by name.
DEFINITIONS = {
    "MACs": "multiply-accumulates of convolutions and fully connected layers for one image, as the file executes them: "
    "zeros that a form multiplies by are counted.",
    "file": "bytes of the file on disk (1 kB = 1,000 bytes).",
    "latency": "median of single inferences of one image in a warm, fresh process pinned to its cores; both files take "
    "turns. The whiskers and the range go from the 5th to the 95th percentile.",
    "distribution of the latencies": "for each latency, the share of the inferences that took no longer. A steep line "
    "is a steady file; a long foot to the right is what a median hides.",
    "times as fast": "dense over compressed latency: the median over rounds of the ratio of both lower quartiles, with "
    "the bootstrap 95 % interval over rounds.",
    "top-1": "images whose highest score is their label, of all images of the data set, computed by the runtime that "
    "runs the file. The whiskers are 1.96 standard errors of a proportion.",
    "start to ready": "from starting the process to the model ready to run, measured once.",
    "memory": "resident memory of the process, not of the model alone (1 MB = 1,000,000 bytes): 'runtime only' before "
    "any model is opened, 'loaded' when the model is ready, 'peak' the highest since then, 'steady' after the warm "
    "inferences. The fifth number is the file.",
    "off its network": "the largest difference between an output of the file and that of the network it was exported "
    "from, over the largest output, on random, extreme and real images.",
    "error of a layer": "squared error of the layer's outputs on held-out calibration images, over their variance; "
    "without calibration images, squared error of its kernel over the kernel's squared norm.",
    "time of a layer": "kernel time of its nodes in ONNX Runtime's profiler at one thread, the median over runs; "
    "activations fused into a layer count for it. The profiler itself costs time: the sum is not the latency.",
}


@dataclass(frozen=True)
class Measured:
    """One file. ``relative`` is its largest relative error against the network it was exported from.

    ``distribution`` holds quantiles of the latency in seconds, evenly spaced from the shortest to the longest.
    """

    file: str
    bytes: int
    macs: int
    relative: float | None = None
    top1: float | None = None
    latency: Mapping[str, float] | None = None
    memory: Mapping[str, int | None] | None = None
    cold: float | None = None
    distribution: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RuntimeFindings:
    """Both files in one runtime. ``key`` is "onnxruntime" or "litert"; ``speedup`` has value, low and high."""

    key: str
    title: str
    dense: Measured
    compressed: Measured
    speedup: Mapping[str, float] | None = None

    @property
    def mac_ratio(self) -> float:
        """Dense over compressed MACs, as executed."""
        return self.dense.macs / self.compressed.macs

    @property
    def file_ratio(self) -> float:
        """Dense over compressed bytes."""
        return self.dense.bytes / self.compressed.bytes

    def to_json(self) -> dict[str, Any]:
        """The ratios first, then both files."""
        return {
            "mac_ratio": self.mac_ratio,
            "file_ratio": self.file_ratio,
            "latency_ratio": dict(self.speedup) if self.speedup else None,
            "top1_dense": self.dense.top1,
            "top1_compressed": self.compressed.top1,
            "title": self.title,
            "dense": asdict(self.dense),
            "compressed": asdict(self.compressed),
        }


@dataclass(frozen=True)
class LayerFindings:
    """One layer. Pairs are (dense, compressed); a layer that stays dense has the same cost twice."""

    name: str
    kernel: str
    became: str
    why: str
    macs: tuple[int, int]
    parameters: tuple[int, int]
    error: float | None = None
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Findings:
    """Everything. ``checks`` are (what was promised, whether it held); ``notes`` are about the measurement."""

    model: str
    about: str
    date: str
    command: str
    runtimes: tuple[RuntimeFindings, ...]
    layers: tuple[LayerFindings, ...]
    environment: Mapping[str, Any]
    versions: Mapping[str, str]
    data: str | None = None
    images: int = 0
    threads: int = 1
    other_seconds: tuple[float, float] | None = None
    checks: tuple[tuple[str, bool], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def held(self) -> bool:
        """Whether every check held."""
        return all(held for _, held in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain data; each runtime under its key."""
        return {
            "format": 1,
            "model": self.model,
            "date": self.date,
            "command": self.command,
            "data": self.data,
            "images": self.images,
            "threads": self.threads,
            **{runtime.key: runtime.to_json() for runtime in self.runtimes},
            "held": self.held,
            "checks": [{"what": what, "held": held} for what, held in self.checks],
            "layers": [asdict(layer) for layer in self.layers],
            "other_seconds": self.other_seconds,
            "environment": dict(self.environment),
            "versions": dict(self.versions),
            "notes": list(self.notes),
            "definitions": DEFINITIONS,
        }
