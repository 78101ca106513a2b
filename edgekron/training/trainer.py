"""The one training loop: any module, any objective, one process or many, taken up again exactly where it was.

Random numbers are drawn from (seed, epoch), the images' order and their augmentation alike, so the state of a run is
its weights, the optimiser's momentum, torch's generators and a step number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekron.errors import UserError
from edgekron.processes import Processes

from . import state as states
from .examples import Examples
from .finite import first_not_finite
from .objective import Objective, cross_entropy
from .precision import autocast
from .results import Scores, TrainingOutcome, TrainingPosition, plain, scores_of
from .settings import TrainingSettings
from .weights import copy_of, follow, make_optimiser, momentum_of, set_momentum, swapped

#: Seconds between two states within an epoch.
SAVE_EVERY = 60.0


class Trainer:
    """Trains ``module`` on ``examples``; what is best on ``held_out`` is in the module when ``run`` returns.

    With a ``folder`` the state is kept there, and the same call takes it up again; ``identity`` says what else the
    state belongs to. ``after_step`` is called after each step of the optimiser, with its learning rate, its number from
    1, and that of the last, and says whether the average of the weights is to begin anew; then ``report``.
    """

    def __init__(
        self,
        module: nn.Module,
        examples: Examples,
        held_out: Examples,
        settings: TrainingSettings,
        *,
        processes: Processes,
        objective: Objective | None = None,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        after_step: Callable[[float, int, int], bool] = lambda rate, step, steps: False,
        report: Callable[[TrainingPosition], None] = lambda progress: None,
    ) -> None:
        self._module, self._examples, self._held_out, self._settings = module, examples, held_out, settings
        self._processes, self._folder = processes, folder
        self._after_step, self._report = after_step, report
        self._objective = objective or cross_entropy(settings.label_smoothing)
        self._identity = {
            **(identity or {}),
            "settings": settings.identity(),
            "images": f"{len(examples)} of {examples.name}",
        }
        self._steps = len(examples) // settings.batch
        if not self._steps:
            raise UserError(
                f"{examples.name} has {len(examples)} images left to train on, fewer than a batch of "
                f"{settings.batch}; give a smaller --batch or more images."
            )
        self._labels = torch.from_numpy(examples.labels)

    def run(self) -> TrainingOutcome:
        """Trains to the end, or until it no longer gets better. Raises ``UserError`` when the loss is not finite."""
        settings, processes = self._settings, self._processes
        module = self._module.to(processes.device)
        optimiser = make_optimiser(module, settings)
        together = processes.together(module)
        found = states.load(self._folder, self._identity, processes.device) if self._folder else None
        if found is None:
            torch.manual_seed(settings.seed)
            before = self.scores()
            facts: dict[str, Any] = {
                "step": 0,
                "averaged_from": 0,
                "devices": [],
                "seconds": 0.0,
                "best_epoch": 0,
                "before": plain(before),
                "best": plain(before),
            }
            self._average, self._best = copy_of(module), copy_of(module)
        else:
            # An older state does not say where its averages began, and on what its steps were done.
            facts = {"averaged_from": 0, "devices": [], **found.facts}
            self._restore(found, module, optimiser)
        log_path = self._folder / states.LOG if self._folder and processes.first else None
        log = states.JsonLines(log_path, int(facts["step"]))
        epoch = int(facts["step"]) // self._steps
        stopped = self._is_over(epoch, facts)
        while epoch < settings.last_epoch and not stopped:
            self._epoch(epoch, facts, together, optimiser)
            epoch += 1
            with swapped(module, self._average):
                scores = self.scores()
            if settings.keep_last or scores.better_than(scores_of(facts["best"])):
                facts |= {"best": plain(scores), "best_epoch": epoch}
                self._best = {key: value.clone() for key, value in self._average.items()}
            loss = self._loss / self._steps
            log.add(
                step=facts["step"], epoch=epoch, loss=loss, rate=settings.rate(epoch - 1 / self._steps),
                top1=scores.top1, held_out_loss=scores.loss, best=facts["best_epoch"] == epoch,
                seconds=facts["seconds"],
            )  # fmt: skip
            self._save(facts, optimiser)
            self._report(TrainingPosition(epoch, facts["step"], self._steps * settings.last_epoch, loss, scores))
            stopped = self._is_over(epoch, facts)
        module.load_state_dict(self._best)
        before, best = scores_of(facts["before"]), scores_of(facts["best"])
        return TrainingOutcome(before, best, facts["best_epoch"], epoch, facts["seconds"], stopped, tuple(facts["devices"]))

    def _is_over(self, epoch: int, facts: Mapping[str, Any]) -> bool:
        """Whether ``epoch`` finished epochs have run out of patience."""
        return bool(self._settings.patience) and epoch - int(facts["best_epoch"]) >= self._settings.patience

    def _epoch(self, epoch: int, facts: dict[str, Any], together: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        settings, device = self._settings, self._processes.device
        if self._processes.device_name not in facts["devices"]:
            facts["devices"].append(self._processes.device_name)
        order = self._order(epoch)
        variant = settings.variant(epoch)
        height, width = (*self._examples.fetch(self._examples.rows[:1]).shape[2:], 1, 1)[:2]
        draws = settings.augmentation.draws(
            len(self._examples.labels), height, width, settings.seed * 100_003 + variant
        )
        together.train()
        start = facts["step"] - epoch * self._steps
        self._loss = facts.get("loss", 0.0) if start else 0.0
        began = saved = time.monotonic()
        total = self._steps * settings.last_epoch
        for step in range(start, self._steps):
            rate = settings.rate(epoch + step / self._steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = order[step * settings.batch : (step + 1) * settings.batch]
            rows = self._processes.share(batch)
            images = torch.from_numpy(self._examples.fetch(rows.numpy())).to(device)
            if images.ndim == 4:
                images = settings.augmentation.apply(images, draws[rows])
                images = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, settings.precision):
                output = together(images)
            labels = self._labels[rows].to(device)
            loss = self._objective(images, output, labels, rows, variant)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip:
                nn.utils.clip_grad_norm_(together.parameters(), settings.clip)
            value = float(self._processes.sum(loss.detach().double())) / self._processes.count
            if not np.isfinite(value):
                self._refuse(images, epoch, step)
            optimiser.step()
            if self._after_step(rate, facts["step"] + 1, total):
                self._average, facts["averaged_from"] = copy_of(self._module), facts["step"]
            # An average over the first steps would remember where training began: let its window grow.
            averaged = facts["step"] - facts["averaged_from"]
            follow(self._average, self._module, min(settings.ema, 1 - 1 / (averaged + 2)))
            self._loss += value
            facts["step"] += 1
            now = time.monotonic()
            facts["seconds"] += now - began
            began = now
            if now - saved > SAVE_EVERY and step + 1 < self._steps:
                facts["loss"] = self._loss
                self._save(facts, optimiser)
                saved = now
            self._report(TrainingPosition(epoch, facts["step"], total, self._loss / (step + 1)))

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._settings.seed * 100_003 + epoch)
        return torch.from_numpy(self._examples.rows)[torch.randperm(len(self._examples), generator=generator)]

    @torch.no_grad()
    def scores(self) -> Scores:
        """Top-1 and objective on the held-out images with the module as it is, over all processes, in float32."""
        module, device = self._module, self._processes.device
        module.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        for images, rows in self._held_out.batches(self._settings.batch, self._processes.rank, self._processes.count):
            x, where = torch.from_numpy(images).to(device), torch.from_numpy(rows)
            labels = self._labels[where].to(device)
            output = module(x)
            totals[0] += (output.argmax(1) == labels).sum() if self._held_out.labelled else 0
            totals[1] += self._objective(x, output, labels, where, -1).double() * len(rows)
        correct, loss = (self._processes.sum(totals) / len(self._held_out)).tolist()
        return Scores(100 * correct if self._held_out.labelled else None, loss)

    def _save(self, facts: dict[str, Any], optimiser: torch.optim.Optimizer) -> None:
        if self._folder is None or not self._processes.first:
            return
        tensors = {
            "model": self._module.state_dict(),
            "average": self._average,
            "best": self._best,
            "momentum": momentum_of(optimiser),
            "random": {"cpu": torch.get_rng_state()},
        }
        if self._processes.device.type == "cuda":
            tensors["random"]["cuda"] = torch.cuda.get_rng_state()
        states.save(self._folder, states.State(tensors, {**facts, "identity": self._identity}))

    def _restore(self, found: states.State, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        module.load_state_dict(found.tensors["model"])
        self._average, self._best = found.tensors["average"], found.tensors["best"]
        set_momentum(optimiser, found.tensors.get("momentum", {}))
        torch.set_rng_state(found.tensors["random"]["cpu"])
        if "cuda" in found.tensors["random"] and self._processes.device.type == "cuda":
            torch.cuda.set_rng_state(found.tensors["random"]["cuda"])

    def _refuse(self, images: Tensor, epoch: int, step: int) -> None:
        layer = first_not_finite(self._module, images)
        where = f"first in layer {layer}" if layer else "in the objective, not in a layer"
        kept = self._folder is not None and (self._folder / states.STATE).exists()
        remedy = f"{self._folder} keeps the last good state, which the same run with" if kept else "train with"
        end = " takes up" if kept else ""
        raise UserError(
            f"the loss is no longer finite in step {step + 1} of epoch {epoch + 1}, {where}; {remedy} a lower learning "
            f"rate{end}."
        )
