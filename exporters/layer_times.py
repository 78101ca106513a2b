"""The time of each source layer of an exported file.

An ONNX file is profiled by ONNX Runtime: every node of the profile leads back to the layer from which it was exported.
A TFLite file is cut into its operators, each of which is timed alone; an operator belongs to the layer that its weights
name. A factorized layer is several nodes or operators: their times are added up under the layer's name.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekron.processes import Progress
    from edgekron.runtimes.devices import Device
    from edgekron.runtimes.single_operators import SingleOperator

#: What follows a layer's name in those of its weights and stages.
_PART = re.compile(r"(\.stage\d+)?(\.(weight|bias|factor)_?\d*)?$|/bias$")

#: Files on the device at once, and the timed part of each: enough for a share, not for a verdict.
_AT_ONCE = 8
_ROUNDS, _SECONDS = 5, 0.1

_PROFILED = "By ONNX Runtime's profiler, whose clock costs time itself: shares are right, the sum is a little high."
_ALONE = "Every operator in a file of its own, which pays for entering and leaving the runtime: shares, not a sum."


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of each layer of a file, in the order of its layers; "" stands for operators that belong to no layer."""

    file: str
    how: str
    seconds: dict[str, float]

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


def layer_times(file: Path, threads: int, pin: bool, device: Device, progress: Progress) -> LayerTimes:
    """Times on a device; ``RuntimeFailure`` or ``UserError`` for a file that cannot be run or read.

    ``progress`` is told what is being done, and how many operators are done of how many.
    """
    if file.suffix.lower() == ".onnx":
        return LayerTimes(str(file), _PROFILED, _profiled(file, threads, pin, device))
    return LayerTimes(str(file), _ALONE, _timed_alone(file, threads, pin, device, progress))


def _profiled(file: Path, threads: int, pin: bool, device: Device) -> dict[str, float]:
    import onnx

    from edgekron.exporters.executed import by_layer
    from edgekron.graph import load
    from edgekron.runtimes.probes import node_times

    nodes = node_times(file, threads=threads, pin=pin, device=device)
    return _added(
        (source_layer(name), time) for name, time in by_layer(onnx.load(file), load(file).layers(), nodes).items()
    )


def _timed_alone(file: Path, threads: int, pin: bool, device: Device, progress: Progress) -> dict[str, float]:
    from edgekron.runtimes import Measuring, bench
    from edgekron.runtimes.single_operators import cut

    with tempfile.TemporaryDirectory(prefix="edgekron-operators-") as folder:
        operators = cut(file, Path(folder))
        files = sorted({operator.alone for operator in operators if operator.alone})
        seconds: dict[Path, float] = {}
        briefly = Measuring(threads=threads, pin=pin, rounds=_ROUNDS, seconds=_SECONDS)
        for start in range(0, len(files), _AT_ONCE):
            progress(f"operators of {file.name}", start, len(files))
            some = files[start : start + _AT_ONCE]
            report = bench(some, briefly, device=device)
            seconds |= {path: result.latency.median for path, result in zip(some, report.files, strict=True)}
    return _added((layer_of(operator), seconds[operator.alone]) for operator in operators if operator.alone)


def layer_of(operator: SingleOperator) -> str:
    """The layer that an operator's weights name; "" for an operator without weights."""
    weights = [name for name in operator.constants if (part := _PART.search(name)) and part.group()]
    return source_layer(weights[0]) if weights else ""


def source_layer(name: str) -> str:
    """The layer of a stage's or a weight's name: features.3 of features.3.stage0.weight."""
    return _PART.sub("", name)


def _added(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for name, seconds in times:
        found[name] += seconds
    return dict(found)
