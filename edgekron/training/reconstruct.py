"""Block-wise reconstruction: several layers at once fitted to the teacher's activations, by gradient, without labels.

The graph is cut at places where a single value is alive. A block lies between two cuts and holds at least ``LAYERS``
factorized layers. The block is trained to give the teacher's value at its end. Its input is the value that the blocks
before it give, compressed and reconstructed, so each block also takes up their error. A block that is no better on
held-out images stays as it was.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.modules.graph_module import GraphModule
from edgekron.processes import Progress

from .precision import autocast

#: Factorized layers of a block, at least.
LAYERS = 3
#: Share of the images that are held out.
HELD_OUT = 0.125
#: Rows that run at once where nothing is learnt.
_ROWS = 256


class Section(NamedTuple):
    """A part of the graph: the values at its beginning and its end, and the factorized layers between them."""

    begin: str
    end: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A block that was reconstructed: the values at its beginning and its end, and its layers.

    ``before`` and ``after`` are its squared errors on held-out images, relative to the variance of the teacher's value.
    ``kept`` says whether the error fell; else the block is as it was.
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
    sections = cut(hub, student)
    descent = _Descent(steps, batch, learning_rate, generator)
    inputs = outputs = torch.from_numpy(images)
    begin_teacher = original.input_name
    done = []
    for index, section in enumerate(sections):
        progress("reconstruct", index, len(sections))
        outputs = _run(original, begin_teacher, section.end, outputs)
        done.append(_fit(student, section, inputs, outputs, held, descent))
        inputs, begin_teacher = _run(student, section.begin, section.end, inputs), section.end
    progress("reconstruct", len(sections), len(sections))
    return student.to_hub(), done


def cut(hub: Hub, module: GraphModule) -> list[Section]:
    """The sections that are reconstructed, in order."""
    factorized = {layer.output: layer.name for layer in hub.layers() if layer.factorized is not None}
    sections: list[Section] = []
    begin = module.input_name
    ends = [*module.bottlenecks(), hub.output_names[0]]
    for end in ends:
        layers = tuple(factorized[name] for name in module.made_between(begin, end) if name in factorized)
        if len(layers) >= LAYERS or (layers and end == ends[-1]):
            sections.append(Section(begin, end, layers))
            begin = end
    return sections


@dataclass(frozen=True)
class _Descent:
    """``steps`` of Adam on batches of ``batch`` rows, drawn by ``generator``, from ``learning_rate`` down a cosine."""

    steps: int
    batch: int
    learning_rate: float
    generator: torch.Generator

    def take(self, student: GraphModule, section: Section, inputs: Tensor, outputs: Tensor, rows: Tensor) -> None:
        """Fits the section's layers to give ``outputs`` for ``inputs``, in ``rows`` of these."""
        parameters = _parameters(student, section)
        scale = _scale(outputs)
        for parameter in parameters:
            parameter.requires_grad = True
        optimiser = torch.optim.Adam(parameters, lr=self.learning_rate)
        for step in range(self.steps):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            pick = rows[torch.randint(len(rows), (self.batch,), generator=self.generator)]
            with autocast(inputs.device, "auto"):
                (value,) = student.run({section.begin: inputs[pick]}, [section.end])
            loss = (value.float() - outputs[pick]).square().mean() / scale
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        for parameter in parameters:
            parameter.requires_grad = False


def _fit(
    student: GraphModule, section: Section, inputs: Tensor, outputs: Tensor, held: Tensor, descent: _Descent
) -> Block:
    """Reconstructs a section where that lowers its error on the images ``held`` out."""
    parameters = _parameters(student, section)
    kept = copy.deepcopy([p.detach() for p in parameters])
    before = _error(student, section, inputs[held], outputs[held]) / _scale(outputs)
    descent.take(student, section, inputs, outputs, (~held).nonzero().reshape(-1))
    after = _error(student, section, inputs[held], outputs[held]) / _scale(outputs)
    better = after < before
    if not better:
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return Block(section.begin, section.end, section.layers, before, after, better)


def _parameters(student: GraphModule, section: Section) -> list[torch.nn.Parameter]:
    return [p for name in section.layers for p in student.get_submodule(student.layers[name]).parameters()]


def _scale(outputs: Tensor) -> float:
    """The variance of the teacher's value, one where the value is constant."""
    return float((outputs - outputs.mean(0)).square().mean()) or 1.0


@torch.no_grad()
def _run(module: GraphModule, begin: str, end: str, values: Tensor) -> Tensor:
    return torch.cat([module.run({begin: piece}, [end])[0] for piece in values.split(_ROWS)])


def _error(module: GraphModule, section: Section, inputs: Tensor, outputs: Tensor) -> float:
    return float((_run(module, section.begin, section.end, inputs) - outputs).square().mean())
