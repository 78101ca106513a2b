"""The time of each node of an ONNX file, by ONNX Runtime's own profiler.

The profiler's clock calls cost time themselves, so these numbers say where the time is spent; how much it is in all is
for ``bench`` to say. That is also why the file runs in this process: shares of one run need neither a fresh process nor
pinned cores.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .backends import load, random_input
from .backends.onnxruntime import import_runtime
from .errors import RuntimeFailure

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """One node as the runtime runs it, fused and renamed: ``seconds`` is the median over the runs."""

    name: str
    operator: str
    seconds: float


def profile(file: str | Path, *, threads: int = 1, runs: int = 50, warm_up: int = 10, seed: int = 0) -> list[NodeTime]:
    """Profiles ``runs`` inferences of one random input after ``warm_up`` others; nodes in the order of their execution.

    Raises ``RuntimeFailure`` for a file that is no ONNX file or cannot be run.
    """
    path = Path(file)
    if path.suffix.lower() != ".onnx":
        raise RuntimeFailure(f"{file} cannot be profiled by node; only .onnx files can.")
    x = random_input(load(path, threads), seed)
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgekron-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "trace")
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(warm_up + runs):
            session.run(None, {name: x})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    samples: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            key = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
            samples.setdefault(key, []).append(event["dur"] / 1e6)
    return [NodeTime(*key, float(np.median(durations[-runs:]))) for key, durations in samples.items()]
