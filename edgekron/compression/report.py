"""What a compression reports of layers: plain data, with the definitions of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekron.graph.cost import cost

if TYPE_CHECKING:
    from edgekron.graph import Layer






def dense_row(layer: Layer, reason: str) -> dict[str, Any]:
    """The row of a layer of the original network that nothing was done to yet, with the reason."""
    kernel = list(layer.kernel_shape) if layer.has_kernel else None
    return {"kernel": kernel, "dense": cost(layer), "method": "dense", "reason": reason}


def totals(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A network's MACs and parameters before and after, from the rows of a report's layers."""
    found = {}
    for unit in ("macs", "parameters"):
        before = sum(row["dense"][unit] for row in rows.values())
        after = sum(row.get("compressed", row["dense"])[unit] for row in rows.values())
        found[unit] = {"dense": before, "compressed": after, "ratio": before / after if after else 1.0}
    return found


def report_of(rows: dict[str, dict[str, Any]], images: int) -> dict[str, Any]:
    """The report of a network from the rows of its layers, fitted to that many calibration images."""
    return {
        "definitions": {
            "macs": "multiply-accumulates of convolutions and fully connected layers for one image",
            "parameters": "stored weights of these layers, without bias",
            "error": "squared error of the layer's outputs on held-out calibration images, over their variance; "
            "without data, squared error of the kernel over its squared norm",
            "channels": "of a layer of a pruned network, what is left of its outputs and inputs, and what there was",
            "degeneracy": "of CP: root of the summed squared norms of the terms over the kernel's norm; about 1 unless "
            "terms cancel",
        },
        "calibration_images": images,
        "totals": totals(rows),
        "layers": rows,
    }
