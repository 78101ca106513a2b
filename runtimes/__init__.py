"""From model files to numbers: run, measure and evaluate ``.onnx`` and ``.tflite`` files where they will be used.

Needs numpy and the runtime of the file, nothing else: neither torch nor the compressor.

    report = bench(["dense.onnx", "small.onnx"])        # latency with intervals, five memory numbers, environment
    report = bench(files, Measuring(threads=4))         # how long, how often, on how many threads
    proof = prove_memory("small.onnx", 64 * 2**20)      # whether it runs under a hard limit
    accuracy = top1("small.tflite", batches)            # in the runtime that runs the file
    session = load("small.onnx"); run_nchw(session, x)  # in this process, outputs as NCHW arrays

``agent`` is all that runs on a board, ``devices`` are the machines that measure, ``check`` judges budgets.
"""

from __future__ import annotations

from .agent.backends import Session, TensorInfo, load, run_nchw
from .agent.errors import RuntimeFailure
from .agent.memory import Memory
from .evaluate import Accuracy, agreement, top1
from .measure import Measuring, bench
from .probes import Proof, node_times, prove_memory, tensor_arena
from .results import FileResult, Report
from .statistics import Interval, Summary

__all__ = [
    "Accuracy",
    "FileResult",
    "Interval",
    "Measuring",
    "Memory",
    "Proof",
    "Report",
    "RuntimeFailure",
    "Session",
    "Summary",
    "TensorInfo",
    "agreement",
    "bench",
    "load",
    "node_times",
    "prove_memory",
    "run_nchw",
    "tensor_arena",
    "top1",
]
