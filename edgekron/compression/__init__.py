"""Compression: from a hub and a plan, or ratios, to a factorized hub; the folder that holds it, and the report on it.

``compressor`` plans and applies, ``refit`` fits one layer behind others that are compressed already, ``report`` says
what was done, ``artifact`` writes and reads the folder.
"""

from edgekron.planning.plan import CompressionPlan

from .artifact import read, write
from .compressor import Compression, CompressionOptions, Draft, apply_plan, compress, draft
from .report import CompressionReport, LayerReport

__all__ = [
    "Compression",
    "CompressionOptions",
    "CompressionPlan",
    "CompressionReport",
    "Draft",
    "LayerReport",
    "apply_plan",
    "compress",
    "draft",
    "read",
    "write",
]
