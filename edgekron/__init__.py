"""EdgeKron: trained convolutional networks, factorized, lowered to plain convolutions, and measured where they run.

    hub = edgekron.load("resnet.onnx")
    small = edgekron.compress(hub, model="resnet", ratios={"macs": 3.0}, data=batches)
    edgekron.export(small.hub, "small.tflite")
    edgekron.bench(["dense.tflite", "small.tflite"])

Each name is imported when it is first asked for, so that ``import edgekron`` is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekron.compression import Compression, CompressionOptions, CompressionPlan, CompressionReport, compress
    from edgekron.errors import UserError
    from edgekron.exporters import export
    from edgekron.graph import Factorized, Hub, Layer, load
    from edgekron.modules import GraphModule, factorize_module
    from edgekron.runtimes import bench

__version__ = version("edgekron")

__all__ = [
    "Compression",
    "CompressionOptions",
    "CompressionPlan",
    "CompressionReport",
    "Factorized",
    "GraphModule",
    "Hub",
    "Layer",
    "UserError",
    "bench",
    "compress",
    "export",
    "factorize_module",
    "load",
]

_ROOMS = {
    "compression": ("Compression", "CompressionOptions", "CompressionPlan", "CompressionReport", "compress"),
    "errors": ("UserError",),
    "exporters": ("export",),
    "graph": ("Factorized", "Hub", "Layer", "load"),
    "modules": ("GraphModule", "factorize_module"),
    "runtimes": ("bench",),
}
_PLACES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'edgekron' has no attribute {name!r}")
    return getattr(import_module(f"edgekron.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
