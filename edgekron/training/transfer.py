"""Knowledge transfer: a loss against a teacher's softened outputs and its intermediate responses.

    loss = label * CE(y, label) + soft * T^2 * KL(softmax(t / T), softmax(y / T)) + hint * mean over layers of E

y and t are the outputs of student and teacher, T the temperature; T^2 keeps the soft term's gradient as large as that
of the labels (``scaled``). E is half the squared distance of a layer's responses in the two networks. By default each
image's response is averaged to at most 4 x 4 pixels and scaled to norm one before. The published form (Lin et al.,
"Holistic CNN compression via low-rank decomposition with knowledge transfer", TPAMI 2019) takes the mean over all
elements of the responses as they are, and leaves T^2 out.

Layers are aligned by name, by forward hooks: nothing in the user's own model changes.

    transfer = KnowledgeTransfer(student, teacher, images)
    ...
    loss = transfer(images, student(images), labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekron.errors import UserError

from .hints import Taps, aligned, default_hints, shapes_of
from .pooling import pooled
from .precision import autocast
from .responses import ResponseCache
from .settings import Precision

#: Pixels along each axis to which normalised responses are averaged.
PIXELS = 4
_OUTPUT = "output"


@dataclass(frozen=True)
class Weights:
    """The weights of the terms; see the module's docstring."""

    label: float = 0.5
    soft: float = 0.5
    temperature: float = 4.0
    scaled: bool = True
    hint: float = 1.0
    normalised: bool = True


PRESETS: Mapping[str, Weights] = {
    "default": Weights(),
    "lrdkt": Weights(label=1.0, soft=0.003, temperature=5.0, scaled=False, hint=0.0005, normalised=False),
}


class KnowledgeTransfer:
    """The loss of ``student`` against ``teacher``, an ``Objective``; the teacher is set to evaluation and frozen.

    ``images`` [n, C, H, W], any few, show the shapes of both networks' answers. ``hints`` are names of layers that both
    have; None takes the last layer of each resolution. ``cache`` keeps the teacher's answers for images that have row
    numbers. Raises ``UserError`` when the classes of the two differ, or layers cannot be aligned, and names these.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        images: Tensor,
        *,
        hints: Sequence[str] | None = None,
        weights: Weights = PRESETS["default"],
        cache: ResponseCache | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.weights, self._precision = weights, precision
        self._teacher = teacher.eval().requires_grad_(requires_grad=False)
        self._cache = cache or ResponseCache(0, 0)
        few = images[:2].to(next(student.parameters()).device)
        self._teacher.to(few.device)
        answers = shapes_of(student, few), shapes_of(teacher, few)
        ours, theirs = (found[""] for found in answers)
        if ours != theirs:
            raise UserError(
                f"the teacher gives {list(theirs)} for each image and the network {list(ours)}; a teacher must know "
                "the same classes."
            )
        if weights.hint:
            self.hints = aligned(*answers, hints) if hints is not None else default_hints(student, teacher, *answers)
        else:
            self.hints = ()
        self._ours, self._theirs = Taps(student, self.hints), Taps(teacher, self.hints)

    def __call__(
        self, images: Tensor, output: Tensor, labels: Tensor | None, rows: Tensor | None = None, variant: int = -1
    ) -> Tensor:
        """The loss of ``output``, the student's answer to ``images`` in its last forward pass.

        The term of the labels is left out without ``labels``, or where one of them is -1.
        """
        taught = self._cache.get(rows, variant, lambda: self._ask(images))
        taught = {name: value.to(output.device) for name, value in taught.items()}
        w = self.weights
        student, teacher = output.float() / w.temperature, taught[_OUTPUT] / w.temperature
        divergence = F.kl_div(
            F.log_softmax(student, 1), F.log_softmax(teacher, 1), reduction="batchmean", log_target=True
        )
        loss = w.soft * (w.temperature**2 if w.scaled else 1.0) * divergence
        if w.label and labels is not None and int(labels.min()) >= 0:
            loss = loss + w.label * F.cross_entropy(output.float(), labels)
        for name in self.hints:
            distance = (self._summary(self._ours.taken[name]) - taught[name]).square() / 2
            each = distance.flatten(1).sum(1).mean() if w.normalised else distance.mean()
            # The published loss adds its layers up.
            loss = loss + w.hint * each / (len(self.hints) if w.normalised else 1)
        return loss

    @torch.no_grad()
    def _ask(self, images: Tensor) -> dict[str, Tensor]:
        # The student may have moved since.
        self._teacher.to(images.device)
        with autocast(images.device, self._precision):
            output = self._teacher(images)
        return {_OUTPUT: output} | {name: self._summary(self._theirs.taken[name]) for name in self.hints}

    def _summary(self, response: Tensor) -> Tensor:
        if not self.weights.normalised:
            return response.float()
        if response.ndim == 4:
            response = pooled(response, PIXELS)
        return F.normalize(response.float().flatten(1), dim=1)

    def remove(self) -> None:
        """Takes the hooks from both networks."""
        self._ours.remove()
        self._theirs.remove()

    def facts(self) -> dict[str, object]:
        """The weights and hints, which a state on disk is checked against."""
        return {"weights": vars(self.weights), "hints": list(self.hints)}
