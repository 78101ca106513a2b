"""Measurements of layers on images, for EDP: covariances of outputs, deviations of responses, largest inputs, and the
losses of the network's outputs without a column or a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgekron.modules.node_modules import OperatorModule

from .kernel import AwareLayer

#: Images that run at once.
_BATCH = 64


def covariances(module: nn.Module, operators: Mapping[str, OperatorModule], images: Tensor) -> dict[str, Tensor]:
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
    """Gives each block the deviations of its basis's responses to the images, with the weights as they are now."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[..., None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name].append(layers[name].responses(inputs[0]))

        return add

    look(module, images, [x.operator.register_forward_pre_hook(hook(name)) for name, x in layers.items()])
    for name, layer in layers.items():
        layer.kernel.spread.copy_(torch.stack(found[name]).square().mean(0).sqrt())


def losses(
    module: nn.Module, layers: Mapping[str, AwareLayer], parts: Mapping[str, nn.Module], images: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses of the network's outputs, to first order, without single columns and without single channels.

    The first mapping has a loss [r] for the columns of each block of ``layers``, the second a loss [C] for the output
    channels of each of ``parts``. A loss is the root mean square of the change of the outputs, each output in units of
    its deviation. The mean of a column's or channel's response is left out, because normalisations and biases make up
    for it. The change of an image's outputs is taken along one direction drawn for the image: the expectation of the
    square is the same.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[part] = inputs[0].detach(), output

    watched = {*parts.values(), *(layer.operator for layer in layers.values())}
    handles = [part.register_forward_hook(keep) for part in watched]
    training, generator = module.training, torch.Generator().manual_seed(0)
    module.eval()
    with torch.no_grad():
        deviations = torch.cat([_outputs(module, piece) for piece in images.split(_BATCH)]).std(0, correction=0)
    columns: dict[str, list[Tensor]] = {name: [] for name in layers}
    rows: dict[str, list[Tensor]] = {name: [] for name in parts}
    with torch.enable_grad():
        for piece in images.split(_BATCH):
            seen.clear()
            outputs = _outputs(module, piece)
            signs = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) * 2 - 1
            along = (outputs * signs / deviations.clamp_min(1e-6)).sum()
            reached = [part for part in watched if part in seen and seen[part][1].requires_grad]
            found: Sequence[Tensor | None] = torch.autograd.grad(
                along, [seen[part][1] for part in reached], allow_unused=True
            )
            slopes = {part: slope for part, slope in zip(reached, found, strict=True) if slope is not None}
            for name, part in parts.items():
                if part in slopes:
                    rows[name].append(_along(seen[part][1].detach(), slopes[part]))
            for name, layer in layers.items():
                if layer.operator in slopes:
                    x, slope = seen[layer.operator][0], slopes[layer.operator]
                    slope = torch.einsum("fr,nf...->nr...", layer.block().coefficients, slope)
                    columns[name].append(_along(layer.made_of(x), slope))
    module.train(training)
    for handle in handles:
        handle.remove()
    return _root_mean_squares(columns), _root_mean_squares(rows)


def _outputs(module: nn.Module, images: Tensor) -> Tensor:
    """All outputs for each image, [n, m]."""
    found = module(images)
    return torch.cat([y.flatten(1).float() for y in (found if isinstance(found, tuple) else (found,))], 1)


def _root_mean_squares(pieces: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(all_).square().mean(0).sqrt() for name, all_ in pieces.items() if all_}


def _along(y: Tensor, slope: Tensor) -> Tensor:
    """The products [n, C] of each channel's deviation from its mean with its slope, summed over pixels."""
    y, slope = (each.transpose(0, 1).reshape(y.shape[1], len(y), -1) for each in (y, slope))
    return ((y - y.mean((1, 2), keepdim=True)) * slope).sum(2).T


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
    """Runs the module on the images in evaluation mode, and takes the hooks ``handles`` away."""
    training = module.training
    module.eval()
    for piece in images.split(_BATCH):
        module(piece)
    module.train(training)
    for handle in handles:
        handle.remove()
