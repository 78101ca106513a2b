"""Weights beside a module's own: copies, an average that follows the module, and the optimiser's momentum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .settings import TrainingSettings


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


@torch.no_grad()
def follow(average: Mapping[str, Tensor], module: nn.Module, keep: float) -> None:
    """Moves an average towards the module's weights, in place; counters are copied."""
    state = module.state_dict()
    move = get_ema_multi_avg_fn(keep)
    # One call for all tensors of a type: on a GPU, one for each would take longer than the step.
    for dtype in {tensor.dtype for tensor in state.values()}:
        keys = [key for key, tensor in state.items() if tensor.dtype == dtype]
        if dtype.is_floating_point:
            move([average[key] for key in keys], [state[key] for key in keys], 0)
        else:
            for key in keys:
                average[key].copy_(state[key])


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other weights for as long as the block lasts."""
    own = copy_of(module)
    module.load_state_dict(weights)
    try:
        yield
    finally:
        module.load_state_dict(own)


def make_optimiser(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD; biases and normalisations do not decay."""
    decayed = [p for p in module.parameters() if p.ndim > 1 and p.requires_grad]
    plain = [p for p in module.parameters() if p.ndim <= 1 and p.requires_grad]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def momentum_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's buffers by the number of their parameter."""
    return {
        f"{index:05d}": entry["momentum_buffer"]
        for index, entry in optimiser.state_dict()["state"].items()
        if entry.get("momentum_buffer") is not None
    }


def set_momentum(optimiser: torch.optim.Optimizer, buffers: Mapping[str, Tensor]) -> None:
    """Gives the optimiser the buffers of ``momentum_of``."""
    blank = optimiser.state_dict()
    blank["state"] = {int(index): {"momentum_buffer": buffer} for index, buffer in buffers.items()}
    optimiser.load_state_dict(blank)
