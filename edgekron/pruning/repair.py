"""The repair without training: layers take over the part of removed channels, by least squares.

Layers are repaired in order. The inputs of a layer are those of the network as repaired so far, its wanted outputs
those of the original network. If the output is only added to a value that exists already (a shortcut), the layer also
makes up for the error of that value. Three kernels are tried:

- the rest of the original kernel;
- with a removed map u_i close to sum_j a_ij u_j + b_i of the maps that stay, W_j + sum_i W_i a_ij, exact for copies;
- the least-squares kernel for the pruned network's inputs, leaning towards the second kernel.

Each kernel gets the bias that makes the mean of its outputs right, and the best on held-out images stays. Batch
normalisations that are no part of a layer are re-estimated on the way; see ``norms``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgekron.fitting.calibration import Walk
from edgekron.memory import give_back
from edgekron.processes import Progress

from .groups import ChannelStructure
from .norms import reestimate, stops
from .samples import Kept, Standing, kept_of, take_sample
from .weights import write_layer

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

#: How far the least-squares kernels lean towards the second one.
LEANS = (0.0, 0.01, 0.1)
#: Share of the mean variance below which maps that stay do not tell apart what a removed one is made of.
RIDGE = 1e-9
#: A relative squared error that is rounding.
_EXACT = 1e-10


@dataclass(frozen=True)
class LayerRepair:
    """How a layer was repaired: by which kernel, and the errors of all that were tried.

    An ``error`` is that of the layer's outputs on held-out images, squared, relative to their variance.
    """

    error: float
    repair: str
    tried: Mapping[str, float]


def repair(
    original: Hub,
    pruned: Hub,
    removed: set[int],
    data: Sequence[np.ndarray],
    progress: Progress = lambda what, done, total: None,
) -> dict[str, LayerRepair]:
    """Repairs the layers of ``pruned``, in place: ``original`` without the units ``removed`` (roots of its structure).

    ``data`` are batches float32 [n, C, H, W]. Returns the repaired layers by name.
    """
    structure = ChannelStructure(original)
    repaired: dict[str, LayerRepair] = {}
    olds = {layer.name: layer for layer in original.layers()}
    first = next((name for name in olds if _changes(structure, name, removed)), None)
    if first is None:
        return repaired
    todo = stops(pruned)
    with Walk(original, data) as reference, Walk(pruned, data) as other:
        standing = Standing(structure, reference, other, removed)
        for index, name in enumerate(todo):
            progress("repair", index, len(todo))
            if index < todo.index(first):
                continue
            if name not in olds:
                reestimate(original, pruned, name, standing)
            elif _mendable(olds[name]) and name in structure.channels.layers:
                old, new = olds[name], pruned.layer(name)
                reference.advance(old)
                other.advance(new)
                kept = kept_of(structure, old, removed)
                repaired[name] = _repair_layer(pruned, old, new, kept, standing, index)
                give_back()
    progress("repair", len(todo), len(todo))
    return repaired


def _changes(structure: ChannelStructure, name: str, removed: set[int]) -> bool:
    """Whether a layer reads fewer channels than before; a depthwise layer reads the channels that it makes."""
    inputs, outputs = structure.channels.layers.get(name, (None, None))
    read = outputs if inputs is None else inputs
    return read is not None and not structure.alive(read, removed).all()


def _mendable(layer: Layer) -> bool:
    depthwise = layer.has_kernel and layer.groups > 1 and layer.kernel_shape[1] == 1
    return layer.frozen_reason is None or depthwise


def _repair_layer(pruned: Hub, old: Layer, new: Layer, kept: Kept, standing: Standing, seed: int) -> LayerRepair:
    left = _cut(old, kept)
    taken, maps = take_sample(old, new, kept, standing, seed)
    tries = [("what is left", left)]
    if maps is not None:
        tries.insert(0, ("absorbed", _absorbed(old, kept, maps)))
    prior = tries[0][1]
    tried = [(name, kernel, taken.moments.bias(kernel)) for name, kernel in tries]
    done = 0.0
    for lean in LEANS:
        # In place, so by what it leans more than before.
        moments = taken.moments.lean(prior, lean - done) if lean > done else taken.moments
        done = max(done, lean)
        kernel = moments.least_squares(prior)
        tried.append((f"least squares, lean {lean:g}", kernel, taken.moments.bias(kernel)))
    errors = [taken.error(kernel, bias) for _, kernel, bias in tried]
    # Of those that are exact but for rounding the first: it is exact for other images, too.
    best = min(range(len(tried)), key=lambda i: max(errors[i], _EXACT))
    _, kernel, bias = tried[best]
    write_layer(pruned, new, kernel.numpy(), bias.float().numpy())
    return LayerRepair(errors[best], tried[best][0], dict(zip((name for name, _, _ in tried), errors, strict=True)))


def _cut(layer: Layer, kept: Kept) -> Tensor:
    kernel = torch.from_numpy(np.array(layer.kernel))
    return kernel[kept.outputs] if layer.groups > 1 else kernel[kept.outputs][:, kept.inputs]


def _absorbed(layer: Layer, kept: Kept, xx: Tensor) -> Tensor:
    """The kernel in which the maps that stay take the removed ones' part, from the maps' moments [n, n]."""
    left = np.isin(kept.places[:, 0], kept.inputs)
    stay, gone = torch.from_numpy(np.flatnonzero(left)), torch.from_numpy(np.flatnonzero(~left))
    among = xx[stay][:, stay]
    ridge = RIDGE * among.diagonal().mean().clamp_min(1e-30)
    shares = torch.linalg.solve(among + ridge * torch.eye(len(stay), dtype=xx.dtype), xx[stay][:, gone])
    kernel = torch.from_numpy(np.array(layer.kernel))[kept.outputs].double()
    places = torch.from_numpy(kept.places)
    kernel[:, places[stay]] += torch.einsum("fgmhw,sg->fsmhw", kernel[:, places[gone]], shares)
    return kernel[:, kept.inputs].float()
