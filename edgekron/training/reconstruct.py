"""Block-wise reconstruction: several layers at once fitted to the teacher's activations, by gradient, without labels.

The graph is cut where a single value is alive. A block is what lies between two cuts and holds at least ``LAYERS``
factorized layers; it is trained to give the teacher's value at its end from what the network compressed and
reconstructed so far gives at its beginning, so it also takes up the error of the blocks before it. A block that is no
better on held-out images stays as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.modules.graph_module import GraphModule

from .precision import autocast

#: Factorized layers of a block, at least.
LAYERS = 3
#: Share of the images that are held out.
HELD_OUT = 0.125
#: Rows that run at once where nothing is learnt.
_ROWS = 256

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Block:
    """A block: values where it begins and ends, its layers, and its squared error on held-out images relative to the
    variance of the teacher's value, before and after; ``kept`` says whether it was better.
    """

    begin: str
    end: str
    layers: tuple[str, ...]
    before: float
    after: float
    kept: bool


def reconstruct(
    hub: Hub,
    teacher: Hub,
    images: np.ndarray,
    *,
    steps: int = 400,
    batch: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Hub, list[Block]]:
    """A reconstructed hub, and what was done to each block; ``images`` are float32 [N, C, H, W].

    ``teacher`` is the hub before compression. ``steps`` of Adam are taken for each block, from ``learning_rate`` down a
    cosine. Raises ``UserError`` for a teacher without the values, or fewer than eight images.
    """
    if len(images) < 8:
        raise UserError(f"{len(images)} images are too few to reconstruct by; give at least 8.")
    student, original = GraphModule(hub), GraphModule(teacher).eval()
    student.eval().requires_grad_(requires_grad=False)
    original.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(images), dtype=torch.bool)
    held[torch.randperm(len(images), generator=generator)[: max(1, round(HELD_OUT * len(images)))]] = True
    blocks = cut(hub, student)
    inputs = outputs = torch.from_numpy(images)
    begin_teacher = original.input_name
    done = []
    for index, (begin, end, layers) in enumerate(blocks):
        progress("reconstruct", index, len(blocks))
        outputs = _run(original, begin_teacher, end, outputs)
        part = _fit(student, begin, end, layers, inputs, outputs, held, steps, batch, learning_rate, generator)
        done.append(part)
        inputs, begin_teacher = _run(student, begin, end, inputs), end
    progress("reconstruct", len(blocks), len(blocks))
    return student.to_hub(), done


def cut(hub: Hub, module: GraphModule) -> list[tuple[str, str, tuple[str, ...]]]:
    """(first value, last value, factorized layers) of each block, in order."""
    factorized = {layer.output: layer.name for layer in hub.layers() if layer.factorized is not None}
    blocks: list[tuple[str, str, tuple[str, ...]]] = []
    begin = module.input_name
    ends = [*module.bottlenecks(), hub.output_names[0]]
    for end in ends:
        layers = tuple(factorized[name] for name in module.made_between(begin, end) if name in factorized)
        if len(layers) >= LAYERS or (layers and end == ends[-1]):
            blocks.append((begin, end, layers))
            begin = end
    return blocks


def _fit(
    student: GraphModule,
    begin: str,
    end: str,
    layers: Sequence[str],
    inputs: Tensor,
    outputs: Tensor,
    held: Tensor,
    steps: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Block:
    parameters = [p for name in layers for p in student.get_submodule(student.layers[name]).parameters()]
    kept = copy.deepcopy([p.detach() for p in parameters])
    scale = float((outputs - outputs.mean(0)).square().mean()) or 1.0
    before = _error(student, begin, end, inputs[held], outputs[held]) / scale
    rows = (~held).nonzero().reshape(-1)
    for parameter in parameters:
        parameter.requires_grad = True
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        pick = rows[torch.randint(len(rows), (batch,), generator=generator)]
        with autocast(inputs.device, "auto"):
            (value,) = student.run({begin: inputs[pick]}, [end])
        loss = (value.float() - outputs[pick]).square().mean() / scale
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    for parameter in parameters:
        parameter.requires_grad = False
    after = _error(student, begin, end, inputs[held], outputs[held]) / scale
    better = after < before
    if not better:
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return Block(begin, end, tuple(layers), before, after, better)


@torch.no_grad()
def _run(module: GraphModule, begin: str, end: str, values: Tensor) -> Tensor:
    return torch.cat([module.run({begin: piece}, [end])[0] for piece in values.split(_ROWS)])


def _error(module: GraphModule, begin: str, end: str, inputs: Tensor, outputs: Tensor) -> float:
    return float((_run(module, begin, end, inputs) - outputs).square().mean())
