"""TFLite files in LiteRT (``ai_edge_litert``), or in its older name ``tflite_runtime``.

Images are NHWC. Most files are written for a fixed batch; the interpreter could be told another, but a RESHAPE with
constant sizes inside would then be wrong, so the batch is changed only where the file declares it free (its shape
signature says -1).
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekron.runtimes.backends.session import Description, Tensor, only_input
from edgekron.runtimes.errors import RuntimeFailure

if TYPE_CHECKING:
    from types import ModuleType

#: (module, distribution, name in reports), the first that can be imported is used.
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert", "litert"),
    ("tflite_runtime.interpreter", "tflite-runtime", "tflite-runtime"),
)


def import_runtime() -> ModuleType:
    """The module with ``Interpreter``; ``RuntimeFailure`` where none is installed."""
    reasons = []
    for name, _, _ in _RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise RuntimeFailure(
        f"LiteRT cannot be imported ({'; '.join(reasons)}); run `pip install ai-edge-litert`, or tflite-runtime with "
        "numpy<2, on the machine that measures."
    )


def load(path: str | Path, threads: int = 1) -> LitertSession:
    """Opens a TFLite file for inference with this many threads."""
    return LitertSession(path, threads)


class LitertSession:
    """One ``Interpreter`` with its default XNNPACK delegate."""

    def __init__(self, path: str | Path, threads: int) -> None:
        self.file = str(path)
        _check_header(Path(path))
        self._module = import_runtime()
        try:
            self._interpreter = self._module.Interpreter(model_path=self.file, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, SystemError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeFailure(f"{path} cannot be opened by LiteRT ({reason}); export it again.") from None
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self.input = only_input(path, [_tensor(detail) for detail in inputs])
        self.outputs = [_tensor(detail) for detail in outputs]
        self._input_index = inputs[0]["index"]
        self._output_indices = [detail["index"] for detail in outputs]
        self._batch = int(inputs[0]["shape"][0]) if len(inputs[0]["shape"]) else 1
        self._threads = threads

    def run(self, array: np.ndarray) -> list[np.ndarray]:
        """See ``Session.run``: the copies in and out are part of the inference, as they are of an application."""
        self._interpreter.set_tensor(self._input_index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def resize(self, batch: int) -> bool:
        """True where the file declares its batch free, or is written for this one."""
        if batch == self._batch:
            return True
        if self.input.shape[0] is not None:
            return False
        self._interpreter.resize_tensor_input(self._input_index, [batch, *self.input.shape[1:]])
        self._interpreter.allocate_tensors()
        self._batch = batch
        return True

    def describe(self) -> Description:
        """See ``Session.describe``; ``partitions`` counts the pieces of the graph that the delegate took."""
        name = self._module.__name__
        distribution, title = next((d, t) for module, d, t in _RUNTIMES if module == name)
        described: dict[str, Any] = {
            "runtime": title,
            "version": metadata.version(distribution),
            "threads": self._threads,
        }
        try:
            operators = [detail["op_name"] for detail in self._interpreter._get_ops_details()]  # noqa: SLF001
        except AttributeError:  # not a public method; some versions may lack it
            return {**described, "delegate": "unknown"}
        partitions = operators.count("DELEGATE")
        return {**described, "delegate": "XNNPACK" if partitions else "none", "partitions": partitions}

    def close(self) -> None:
        """See ``Session.close``."""
        del self._interpreter


def _check_header(path: Path) -> None:
    """Refuses what is no TFLite file before the runtime sees it: older interpreters do not verify."""
    try:
        with path.open("rb") as file:
            header = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise RuntimeFailure(f"{path} cannot be read ({error.strerror}); check the path.") from None
    root = int.from_bytes(header[:4], "little")
    if header[4:8] != b"TFL3" or not 8 <= root <= size - 4:
        raise RuntimeFailure(f"{path} is not a TFLite file, or is truncated ({size} bytes); export it again.")


def _tensor(detail: dict[str, Any]) -> Tensor:
    signature = detail.get("shape_signature", detail["shape"])
    shape = tuple(None if size < 0 else int(size) for size in signature)
    dtype = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    quantization = (float(scale), int(zero)) if dtype.kind in "iu" and scale else None
    return Tensor(detail["name"], shape, dtype.name, "NHWC" if len(shape) == 4 else "plain", quantization)
