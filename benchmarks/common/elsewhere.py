"""Runs one file in whichever runtime the interpreter that runs this has: for ``benchmarks.old_runtimes``.

    PYTHON benchmarks/common/elsewhere.py onnxruntime|tflite-runtime|tflite-micro FILE INPUT.npy OUTPUT.npy

The input has the file's own layout, one image after the other along the first axis; the first outputs are written.
It needs numpy and the runtime, and nothing of EdgeKron: neither do the files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


def onnxruntime(file: str) -> Run:
    """ONNX Runtime on one thread."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def tflite_runtime(file: str) -> Run:
    """The last release of tflite-runtime."""
    from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()

    def run(x: Any) -> Any:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def tflite_micro(file: str) -> Run:
    """The interpreter for microcontrollers, with room enough for everything."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(file, arena_size=64 * 2**20)

    def run(x: Any) -> Any:
        interpreter.set_input(x, 0)
        interpreter.invoke()
        return interpreter.get_output(0)

    return run


RUNTIMES = {"onnxruntime": onnxruntime, "tflite-runtime": tflite_runtime, "tflite-micro": tflite_micro}

if __name__ == "__main__":
    _, name, path, given, result = sys.argv
    network = RUNTIMES[name](path)
    np.save(result, np.concatenate([np.asarray(network(x[None])) for x in np.load(given)]))
