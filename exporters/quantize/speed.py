"""Whether an int8 file is slower than the float32 file that it was made of, and why.

A runtime has fast integer kernels for some operators alone. LiteRT runs an operator that XNNPACK has no kernel for on
its own, and parts the network there; ONNX Runtime computes an operator without integer kernel in float, between two
conversions. How much that costs depends on the rest of the network and on the processor, so both files are timed for a
moment, in turns. The clock is the processor time of the thread, which stands still while another process has the core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edgekron.runtimes.agent.backends import load, random_input

if TYPE_CHECKING:
    from edgekron.runtimes.agent.backends import Session

#: Seconds that the timing lasts, after the fewest turns of a file.
SECONDS, FEWEST, MOST = 0.3, 3, 50
#: An int8 file that takes this many times as long as float32 is slower; a file timed against itself stays below.
SLOWER = 1.1
#: Nodes of ONNX files that convert, move or choose values in any type.
_ANY_TYPE = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Cast", "ReorderInput", "ReorderOutput", "Identity"}
    | {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"}
    | {"MaxPool", "Slice", "Gather", "Split", "Concat", "Pad", "Resize"}
)
#: How the names of ONNX Runtime's operators on integers begin.
_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul")


def speed_notice(plain: bytes, quantized: bytes, target: str) -> list[str]:
    """One sentence for the user if the int8 file is slower than the float32 file here, else none.

    ``target`` is "onnx" or "tflite".
    """
    with tempfile.TemporaryDirectory(prefix="edgekron-speed-") as folder:
        files = [Path(folder) / f"{name}.{target}" for name in ("float32", "int8")]
        for file, data in zip(files, (plain, quantized), strict=True):
            file.write_bytes(data)
        sessions = [load(file) for file in files]
        float32, int8 = times(sessions)
        if int8 <= SLOWER * float32:
            return []
        runtime = sessions[1].describe()["runtime"]
        slow = not_delegated(sessions[1]) if target == "tflite" else left_in_float(files[1])
    return [sentence(int8 / float32, runtime, slow)]


def with_size(proto: onnx.ModelProto, shape: Sequence[int]) -> bytes:
    """A model's bytes, with sizes of the input that are open behind the batch fixed to ``shape``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for dim, size in zip(copy.graph.input[0].type.tensor_type.shape.dim[1:], shape, strict=False):
        dim.dim_value = size
    return copy.SerializeToString()


def sentence(ratio: float, runtime: str, slow: Counter[str]) -> str:
    """The words for a file that takes ``ratio`` times as long; ``slow`` counts operators without a fast kernel."""
    named = ", ".join(f"{operator} ({count})" for operator, count in sorted(slow.items()))
    reason = f", which has no fast integer kernel for {named}" if named else ""
    return (
        f"the int8 file takes {ratio:.2f} times as long as float32 in {runtime}{reason}; where time matters more than "
        "bytes, export float32 or compare both with `edgekron bench` on the device."
    )


def times(sessions: Sequence[Session]) -> list[float]:
    """The median seconds of an inference of each session, the sessions in turns."""
    inputs = [random_input(session, 0) for session in sessions]
    for session, x in zip(sessions, inputs, strict=True):
        session.run(x)
    samples: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + SECONDS
    while len(samples[0]) < FEWEST or (time.perf_counter() < end and len(samples[0]) < MOST):
        for session, x, taken in zip(sessions, inputs, samples, strict=True):
            start = time.thread_time()
            session.run(x)
            taken.append(time.thread_time() - start)
    return [statistics.median(taken) for taken in samples]


def not_delegated(session: Session) -> Counter[str]:
    """The operators of a TFLite file that XNNPACK does not take."""
    return Counter(session.describe().get("not_delegated", []))


def left_in_float(file: Path) -> Counter[str]:
    """The operators of an ONNX file that ONNX Runtime, with all nodes fused, computes in float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(file.with_suffix(".optimized.onnx"))
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    names = (node.op_type for node in graph.node)
    return Counter(name for name in names if name not in _ANY_TYPE and not name.startswith(_INTEGER))
