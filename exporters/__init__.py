"""Exporters: from the hub to files that runtimes open.

    notices = export(hub, "network.onnx")

``export`` writes every format and type, and imports heavy packages only when called. ``onnx`` and ``tflite`` write
float32 files, ``quantize`` makes smaller types of these, ``tuning`` finds the fastest forms of layers by measurement,
and ``verify`` shows by how much a file differs from its network.
"""

from .export import ExportSettings, export

__all__ = ["ExportSettings", "export"]
