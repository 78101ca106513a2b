"""Finds the layer in which numbers stop being numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgekron.modules.node_modules import Normalised


@torch.no_grad()
def first_not_finite(module: nn.Module, images: Tensor) -> str | None:
    """Name of the first submodule whose weights or output are NaN or infinite on ``images``; None where all are."""
    found: list[str] = []

    def watch(name: str, part: nn.Module) -> RemovableHandle:
        def hook(_part: nn.Module, _inputs: object, output: object) -> None:
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
