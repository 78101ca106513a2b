"""What layers make of images, for EDP: covariances of outputs, deviations of responses, and what arrives at layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .aware_kernel import AwareLayer
from .node_modules import Operator

#: Images that run at once.
_BATCH = 64


def covariances(module: nn.Module, operators: Mapping[str, Operator], images: Tensor) -> dict[str, Tensor]:
    """Covariance [F, F] of each operator's outputs."""
    sums: dict[str, tuple[Any, Any, int]] = {}

    def hook(name: str) -> Callable[..., None]:
        def add(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            y = output.transpose(0, 1).flatten(1).double()
            xx, x, count = sums.get(name, (0, 0, 0))
            sums[name] = xx + y @ y.mT, x + y.sum(1), count + y.shape[1]

        return add

    look(module, images, [operator.register_forward_hook(hook(name)) for name, operator in operators.items()])
    return {name: xx / n - torch.outer(x / n, x / n) for name, (xx, x, n) in sums.items()}


def measure_responses(module: nn.Module, layers: Mapping[str, AwareLayer], images: Tensor) -> None:
    """Gives each block the deviations of what its basis makes of the images as it is now."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[..., None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name].append(layers[name].responses(inputs[0]))

        return add

    look(module, images, [x.operator.register_forward_pre_hook(hook(name)) for name, x in layers.items()])
    for name, layer in layers.items():
        layer.kernel.spread.copy_(torch.stack(found[name]).square().mean(0).sqrt())


def read_by(module: nn.Module, parts: Mapping[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """The largest absolute value [C] that each of ``parts`` reads in each channel."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            peaks = inputs[0].transpose(0, 1).flatten(1).abs().amax(1)
            found[name] = torch.maximum(found[name], peaks) if name in found else peaks

        return keep

    look(module, images, [part.register_forward_pre_hook(hook(name)) for name, part in parts.items()])
    return found


@torch.no_grad()
def look(module: nn.Module, images: Tensor, handles: Sequence[RemovableHandle]) -> None:
    """Shows the images to the module, as it is in use, and takes the hooks away."""
    training = module.training
    module.eval()
    for piece in images.split(_BATCH):
        module(piece)
    module.train(training)
    for handle in handles:
        handle.remove()
