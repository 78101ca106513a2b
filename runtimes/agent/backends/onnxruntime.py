"""ONNX files in ONNX Runtime, on the processor.

Spinning is off: a pool of threads that waits for work in a busy loop takes the cores from the next measurement. Sizes
that a file leaves open (the batch) stay open.

ONNX has no scale for an integer input or output. A file whose integers stand for real numbers keeps the scales in its
metadata, under ``QUANTIZATION``, as JSON: {name: [scale, zero point]}.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Protocol

from edgekron.runtimes.agent.errors import RuntimeFailure

from .session import TensorInfo, only_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    import numpy as np

    from edgekron.runtimes.agent.messages import RuntimeFacts

#: Element types whose name is not numpy's.
_TYPES = {"float": "float32", "double": "float64"}

#: The metadata entry with the scales of integer inputs and outputs.
QUANTIZATION = "edgekron.quantization"


def import_runtime() -> ModuleType:
    """The onnxruntime module; ``RuntimeFailure`` on a machine without it."""
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeFailure(
            f"ONNX Runtime cannot be imported ({error}); run `pip install onnxruntime` on the machine that measures."
        ) from None
    # Events that the runtime may record for its maker are neither the user's wish nor part of an inference.
    try:
        module.disable_telemetry_events()
    except AttributeError:
        version = getattr(module, "__version__", "of an unknown version")
        raise RuntimeFailure(
            f"ONNX Runtime {version} is too old; run `pip install --upgrade onnxruntime` on the machine that measures."
        ) from None
    return module


def load(path: str | Path, threads: int = 1) -> OnnxSession:
    """Opens an ONNX file for inference with this many threads."""
    return OnnxSession(path, threads)


class OnnxSession:
    """One ``InferenceSession``."""

    def __init__(self, path: str | Path, threads: int) -> None:
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self.file = str(path)
        try:
            self._session = runtime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no base class of their own
            reason = str(error).strip().splitlines()[0]
            raise RuntimeFailure(
                f"{path} cannot be opened by ONNX Runtime {runtime.__version__} ({reason}); export it again."
            ) from None
        scales = scales_of(path, self._session.get_modelmeta().custom_metadata_map)
        self.input = only_input(path, [_tensor(value, scales) for value in self._session.get_inputs()])
        self.outputs = [_tensor(value, scales) for value in self._session.get_outputs()]
        self._threads = threads

    def run(self, array: np.ndarray) -> list[np.ndarray]:
        """See ``Session.run``."""
        return list(self._session.run(None, {self.input.name: array}))

    def resize(self, batch: int) -> bool:
        """True where the batch is free, or is this one already."""
        return self.input.shape[0] in (None, batch)

    def describe(self) -> RuntimeFacts:
        """See ``Session.describe``."""
        return {
            "runtime": "onnxruntime",
            "version": import_runtime().__version__,
            "delegate": ", ".join(self._session.get_providers()),
            "threads": self._threads,
            "spinning": False,
        }

    def close(self) -> None:
        """See ``Session.close``."""
        del self._session


def scales_of(path: str | Path, metadata: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """(scale, zero point) of a file's integer inputs and outputs by name, from its metadata."""
    try:
        found = json.loads(metadata.get(QUANTIZATION, "{}"))
        return {str(name): (float(scale), int(zero)) for name, (scale, zero) in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RuntimeFailure(f"{path}: its metadata {QUANTIZATION} is damaged ({error}); export it again.") from None


class _NodeArg(Protocol):
    """An input or output as the runtime describes it; a size that the file leaves open is a name or None."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def _tensor(value: _NodeArg, scales: Mapping[str, tuple[float, int]]) -> TensorInfo:
    name = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    layout = "NCHW" if len(shape) == 4 else "plain"
    return TensorInfo(value.name, shape, _TYPES.get(name, name), layout, scales.get(value.name), layout)
