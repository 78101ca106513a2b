"""From the hub to a standard ONNX file: only operators of the default domain, each factor stored once.

    proto = export_onnx(hub, "network.onnx")

Each factorized node becomes the steps of ``edgekron.algebra.lowering.lower`` (``steps``); all other nodes are the
hub's. onnxsim simplifies the result, kept from multiplying out factors that the file stores once. Inputs and outputs
have the open sizes of the network's source (``axes``), and the source's metadata is kept.
"""

from .axes import size_bound, size_notice
from .export import OPSETS, export_onnx

__all__ = ["OPSETS", "export_onnx", "size_bound", "size_notice"]
