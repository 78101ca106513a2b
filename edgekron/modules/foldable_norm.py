"""Batch normalisation that a factorized layer can take up again: scales that belong to one factor.

A network is compressed with its batch normalisations folded away, and deep networks train badly without. So a layer's
output y gets one back for the time of training. In the form

    z[c] = gain[p] * (y[c] - mean[c]) / sqrt(variance[p] + eps) + shift[c]        p = the part of f that c belongs to

mean and shift are of each channel and go into the bias. The scale gain[p] / sqrt(variance[p] + eps) is of one *part* of
f, the longest, which one factor holds alone: this factor takes it, exactly. Where f is in one piece, p is c, and this
is ordinary batch normalisation. Gain and shift start so that nothing changes: as deviation and mean of what comes in.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from edgekron.algebra import FactorNetwork

#: Weight of a batch in the running statistics, and what is added to a variance.
MOMENTUM, EPSILON = 0.1, 1e-5


class FoldableNorm(nn.Module):
    """Normalises [N, C, H, W]; ``parts`` [C] gives the part of each channel, 0 to the number of parts less one.

    Statistics are those of the batch over all processes in training mode, and running ones in evaluation mode.
    """

    def __init__(self, parts: Tensor) -> None:
        super().__init__()
        self.count = int(parts.max()) + 1
        self.whole = self.count == len(parts)
        self.register_buffer("parts", parts, persistent=False)
        self.register_buffer("mean", torch.zeros(len(parts)))
        self.register_buffer("variance", torch.ones(self.count))
        self.gain = nn.Parameter(torch.full((self.count,), (1 + EPSILON) ** 0.5))
        self.shift = nn.Parameter(torch.zeros(len(parts)))
        self.parts: Tensor
        self.mean: Tensor
        self.variance: Tensor

    @torch.no_grad()
    def start(self, mean: Tensor, variance: Tensor) -> None:
        """Sets the statistics from those of each channel [C], and gain and shift so that nothing changes."""
        self.mean.copy_(mean)
        self.variance.copy_(self.pooled(variance))
        self.gain.copy_((self.variance + EPSILON).sqrt())
        self.shift.copy_(mean)

    def scale(self) -> Tensor:
        """What the running statistics multiply each part with, [parts]."""
        return self.gain / (self.variance + EPSILON).sqrt()

    def offset(self, bias: Tensor | None) -> Tensor:
        """The bias [C] of a layer that has taken the scale up."""
        return self.shift + ((0 if bias is None else bias) - self.mean) * self.scale()[self.parts]

    def forward(self, y: Tensor) -> Tensor:
        alone = not (dist.is_initialized() and dist.get_world_size() > 1)
        if self.whole and (alone or not self.training):
            return F.batch_norm(y, self.mean, self.variance, self.gain, self.shift, self.training, MOMENTUM, EPSILON)
        if not self.training:
            scale = self.scale()[self.parts]
            return y * scale.view(1, -1, 1, 1) + (self.shift - self.mean * scale).view(1, -1, 1, 1)
        mean, variance = self._statistics(y.float())
        pooled = self.pooled(variance)
        count = y.numel() / y.shape[1] * (1 if alone else dist.get_world_size())
        with torch.no_grad():
            self.mean.lerp_(mean, MOMENTUM)
            self.variance.lerp_(pooled * (count / max(count - 1, 1)), MOMENTUM)
        scale = (self.gain / (pooled + EPSILON).sqrt())[self.parts]
        offset = self.shift - mean * scale
        return y * scale.to(y.dtype).view(1, -1, 1, 1) + offset.to(y.dtype).view(1, -1, 1, 1)

    def pooled(self, variance: Tensor) -> Tensor:
        """The mean over the channels of each part."""
        total = torch.zeros_like(self.variance).index_add(0, self.parts, variance)
        return total * (self.count / len(self.parts))

    @staticmethod
    def _statistics(y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each channel, over all processes."""
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return mean, variance
        both = torch.stack([mean, variance + mean * mean])
        summed: Tensor = all_reduce(both)
        mean, square = summed / dist.get_world_size()
        return mean, square - mean * mean


def longest_part(network: FactorNetwork) -> tuple[int, str, Tensor]:
    """(factor, axis, parts [C]) of the longest part of f; g counts as the coarsest part of the outputs, in every
    factor, so that a grouped layer has a part of its own for each group.

    The channels are g and the parts of f, coarse to fine, as in the kernel's first axis.
    """
    axes = [*network.parts("g"), *network.parts("f")]
    sizes = [network.sizes[a] for a in axes]
    axis = max(network.parts("f"), key=lambda a: network.sizes[a])
    factor = next(i for i, held in enumerate(network.axes) if axis in held)
    index = torch.arange(network.kernel_shape[0]).reshape(sizes)
    kept = [i for i, a in enumerate(axes) if a == axis or (a[0] == "g" and a in network.axes[factor])]
    parts = torch.zeros_like(index)
    for i in kept:
        along = [1] * len(sizes)
        along[i] = sizes[i]
        parts = parts * sizes[i] + torch.arange(sizes[i]).view(along)
    return factor, axis, parts.reshape(-1)


def scaled_factor(network: FactorNetwork, factor: int, axis: str, tensor: Tensor, scale: Tensor) -> Tensor:
    """The factor's tensor times ``scale`` [parts] along the axes that ``longest_part`` chose."""
    held = network.axes[factor]
    kept = [a for a in network.parts("g") if a in held] + [axis]
    shaped = scale.reshape([network.sizes[a] for a in kept])
    order = sorted(range(len(kept)), key=lambda i: held.index(kept[i]))
    shaped = shaped.permute(order)
    return tensor * shaped.reshape([network.sizes[a] if a in kept else 1 for a in held])
