"""Statistics of layers' outputs over images: to begin normalisations with, and to correct compressed layers by.

Compression moves the mean of a layer's outputs, which the bias corrects, and takes variance from them, because the
part of the kernel that is cut off had energy. ``re_estimate`` gives every layer the teacher's means and, with
``rescale``, the teacher's deviations, in the order of the network, so that the inputs of each layer are corrected
before the layer is. Deviations are corrected for the longest part of f, which one factor can take up (see
``edgekron.modules.foldable_norm``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.modules.foldable_norm import EPSILON, FoldableNorm
from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import Normalised

#: Images that run at once.
_BATCH = 64


def begin_norms(module: nn.Module, batches: Iterable[np.ndarray]) -> None:
    """Sets every ``FoldableNorm`` of ``module`` to the statistics of its inputs, so that nothing changes.

    ``batches`` are float32 [n, C, H, W].
    """
    norms = [part for part in module.modules() if isinstance(part, FoldableNorm)]
    if not norms:
        return
    sums = _Sums(norms)
    device = next(module.parameters()).device
    module.eval()
    with torch.no_grad():
        for batch in batches:
            module(torch.from_numpy(batch).to(device))
    for norm, mean, variance in sums.finish():
        norm.start(mean, variance)


class _Sums:
    """Mean and variance of the inputs of normalisations, in float64."""

    def __init__(self, norms: Sequence[FoldableNorm]) -> None:
        self._norms = norms
        self._sums: dict[int, tuple[Tensor, Tensor, int]] = {}
        self._handles = [norm.register_forward_pre_hook(self._hook(i)) for i, norm in enumerate(norms)]

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            total, squares, count = moments(inputs[0])
            if index in self._sums:
                before = self._sums[index]
                total, squares, count = total + before[0], squares + before[1], count + before[2]
            self._sums[index] = total, squares, count

        return add

    def finish(self) -> list[tuple[FoldableNorm, Tensor, Tensor]]:
        """Each normalisation that was reached, with mean and variance of each channel."""
        for handle in self._handles:
            handle.remove()
        found = []
        for index, (total, squares, count) in self._sums.items():
            mean = total / count
            found.append((self._norms[index], mean.float(), (squares / count - mean * mean).clamp(min=0).float()))
        return found


def moments(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """(sum, sum of squares, count) of each channel of [N, C, H, W], in float64."""
    exact = values.double()
    return exact.sum((0, 2, 3)), exact.square().sum((0, 2, 3)), values.numel() // values.shape[1]


@torch.no_grad()
def re_estimate(hub: Hub, teacher: Hub, images: np.ndarray, *, rescale: bool) -> Hub:
    """A hub whose factorized convolutions have the teacher's means, and with ``rescale`` deviations, on ``images``.

    ``images`` are float32 [N, C, H, W]. Raises ``UserError`` when the teacher lacks a layer.
    """
    module, original = GraphModule(hub, normalise=True).eval(), GraphModule(teacher).eval()
    theirs = {layer.name: layer.output for layer in teacher.layers()}
    layers = [layer for layer in hub.layers() if layer.factorized is not None]
    pairs = [(layer, module.get_submodule(module.layers[layer.name])) for layer in layers]
    todo = [(layer, part) for layer, part in pairs if isinstance(part, Normalised)]
    if missing := [layer.name for layer, _ in todo if layer.name not in theirs]:
        raise UserError(f"the teacher has no layers {', '.join(missing)}; give the network that was compressed.")
    pieces = [torch.from_numpy(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    wanted = [theirs[layer.name] for layer, _ in todo]
    targets = _means(wanted, [original.run({original.input_name: x}, wanted) for x in pieces])
    for layer, part in todo:
        own = _means([layer.output], [module.run({module.input_name: x}, [layer.output]) for x in pieces])
        mean, variance = own[layer.output]
        norm = part.norm
        # The normalisation is still the identity: its inputs have the statistics of the layer's outputs.
        norm.start(mean, variance)
        aim, spread = targets[theirs[layer.name]]
        norm.shift.copy_(aim)
        if rescale:
            norm.gain.copy_((norm.pooled(spread) + EPSILON).sqrt())
    return module.to_hub()


def _means(names: Sequence[str], pieces: Sequence[Sequence[Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel of the values, over all pieces."""
    found = {}
    for index, name in enumerate(names):
        parts = [moments(piece[index]) for piece in pieces]
        count = sum(part[2] for part in parts)
        mean = torch.stack([part[0] for part in parts]).sum(0) / count
        square = torch.stack([part[1] for part in parts]).sum(0) / count
        found[name] = mean.float(), (square - mean * mean).clamp(min=0).float()
    return found
