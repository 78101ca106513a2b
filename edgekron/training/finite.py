"""Finds the layer in which numbers stop being numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekron.modules.node_modules import Normalised


@torch.no_grad()
def first_not_finite(module: nn.Module, images: Tensor) -> str | None:
    """Name of the first submodule whose weights or output are NaN or infinite on ``images``; None where all are."""
    found: list[str] = []

    def watch(name: str, part: nn.Module) -> Any:
        def hook(_part: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = [*part.parameters(recurse=False), *([output] if isinstance(output, Tensor) else [])]
            if not found and not all(bool(torch.isfinite(t).all()) for t in tensors):
                found.append(name)

        return part.register_forward_hook(hook)

    handles = [watch(name, part) for name, part in module.named_modules() if name]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return None
    parent = found[0].rpartition(".")[0]
    # The parts of a normalised layer have no name that the user knows.
    return parent if isinstance(module.get_submodule(parent), Normalised) else found[0]
