"""Runtimes that execute model files: one module each, chosen by the file's suffix.

A backend has ``import_runtime()`` and ``load(path, threads)``, which gives a ``Session``; ``session`` says how sessions
behave and feeds the same images to any of them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from .session import Session, TensorInfo, random_input, run_nchw

if TYPE_CHECKING:
    from types import ModuleType

#: The module of this package that runs files with a suffix.
BACKENDS = {".onnx": "onnxruntime", ".tflite": "litert"}

__all__ = ["BACKENDS", "Session", "TensorInfo", "backend", "load", "random_input", "run_nchw"]


def backend(path: str | Path) -> ModuleType:
    """The module that runs this file: ``import_runtime()`` and ``load(path, threads)``."""
    suffix = Path(path).suffix.lower()
    if suffix not in BACKENDS:
        known = " or ".join(BACKENDS)
        raise RuntimeFailure(f"{path} is not a file that a runtime here runs; export the model to {known} first.")
    return importlib.import_module(f"{__name__}.{BACKENDS[suffix]}")


def load(path: str | Path, threads: int = 1) -> Session:
    """Opens a model file in this process.

    A runtime may abort the whole process on a damaged file; ``edgekron.runtimes.devices`` opens files in a process of
    their own.
    """
    module = backend(path)
    if not Path(path).is_file():
        raise RuntimeFailure(f"{path} does not exist; check the path.")
    session: Session = module.load(path, threads)
    return session
