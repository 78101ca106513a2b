"""Pages that show a compression, made from numbers that were measured in the same run."""

from __future__ import annotations

from .findings import Findings, LayerFindings, Measured, RuntimeFindings
from .page import render

__all__ = ["Findings", "LayerFindings", "Measured", "RuntimeFindings", "render"]
