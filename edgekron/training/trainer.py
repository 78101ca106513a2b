"""The one training loop: any module, any objective, one process or many, taken up again exactly where it was.

The images' order and their augmentation are drawn from (seed, epoch), so the state of a run is its weights, the
optimiser's momentum, torch's generators and a step number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

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
from .results import Scores, TrainingListener, TrainingOutcome, TrainingPosition, TrainingRecord
from .settings import TrainingSettings
from .weights import copy_of, follow, make_optimiser, momentum_of, set_momentum, swapped

#: Seconds between two states within an epoch.
SAVE_EVERY = 60.0

#: Called after each step of the optimiser with the step's learning rate, its number from 1, and the number of the last
#: step; says whether the average of the weights is to begin anew.
AfterStep = Callable[[float, int, int], bool]


class Trainer:
    """Trains ``module`` on ``examples``; ``run`` leaves the weights in it that were best on ``held_out``.

    With a ``folder`` the state is kept there, and the same call takes the run up again; ``identity`` adds facts that
    the state must share with the run.
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
        identity: Mapping[str, object] | None = None,
    ) -> None:
        self._module, self._examples, self._held_out, self._settings = module, examples, held_out, settings
        self._processes, self._folder = processes, folder
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

    def run(
        self,
        *,
        after_step: AfterStep = lambda rate, step, steps: False,
        report: TrainingListener = lambda position: None,
    ) -> TrainingOutcome:
        """Trains to the end, or until the scores no longer get better.

        After each step of the optimiser ``after_step`` is called, then ``report``. Raises ``UserError`` when the loss
        is not finite.
        """
        self._after_step, self._report = after_step, report
        settings, processes = self._settings, self._processes
        module = self._module.to(processes.device)
        optimiser = make_optimiser(module, settings)
        together = processes.together(module)
        record = self._begin(module, optimiser)
        log_path = self._folder / states.LOG if self._folder and processes.first else None
        log = states.JsonLines(log_path, record.step)
        epoch = record.step // self._steps
        stopped = self._is_over(epoch, record)
        while epoch < settings.last_epoch and not stopped:
            self._epoch(epoch, record, together, optimiser)
            epoch += 1
            with swapped(module, self._average):
                scores = self.scores()
            if settings.keep_last or scores.better_than(record.best):
                record.best, record.best_epoch = scores, epoch
                self._best = {key: value.clone() for key, value in self._average.items()}
            loss = record.loss / self._steps
            log.add(
                step=record.step, epoch=epoch, loss=loss, rate=settings.rate(epoch - 1 / self._steps),
                top1=scores.top1, held_out_loss=scores.loss, best=record.best_epoch == epoch, seconds=record.seconds,
            )  # fmt: skip
            self._save(record, optimiser)
            self._report(TrainingPosition(epoch, record.step, self._steps * settings.last_epoch, loss, scores))
            stopped = self._is_over(epoch, record)
        module.load_state_dict(self._best)
        before, best, devices = record.before, record.best, tuple(record.devices)
        return TrainingOutcome(before, best, record.best_epoch, epoch, record.seconds, stopped, devices)

    def _begin(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> TrainingRecord:
        """The record of the run that is in the folder, with the weights of its state; or that of a new run."""
        found = states.load(self._folder, self._identity, self._processes.device) if self._folder else None
        if found is not None:
            self._restore(found, module, optimiser)
            return TrainingRecord.read(found.facts)
        torch.manual_seed(self._settings.seed)
        before = self.scores()
        self._average, self._best = copy_of(module), copy_of(module)
        return TrainingRecord(before, before)

    def _is_over(self, epoch: int, record: TrainingRecord) -> bool:
        """Whether ``epoch`` finished epochs have run out of patience."""
        return bool(self._settings.patience) and epoch - record.best_epoch >= self._settings.patience

    def _epoch(self, epoch: int, record: TrainingRecord, together: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        settings, device = self._settings, self._processes.device
        if self._processes.device_name not in record.devices:
            record.devices.append(self._processes.device_name)
        order = self._order(epoch)
        variant = settings.variant(epoch)
        height, width = (*self._examples.fetch(self._examples.rows[:1]).shape[2:], 1, 1)[:2]
        draws = settings.augmentation.draws(
            len(self._examples.labels), height, width, settings.seed * 100_003 + variant
        )
        together.train()
        start = record.step - epoch * self._steps
        record.loss = record.loss if start else 0.0
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
            if self._after_step(rate, record.step + 1, total):
                self._average, record.averaged_from = copy_of(self._module), record.step
            # An average over the first steps would remember where training began: let its window grow.
            averaged = record.step - record.averaged_from
            follow(self._average, self._module, min(settings.ema, 1 - 1 / (averaged + 2)))
            record.loss += value
            record.step += 1
            now = time.monotonic()
            record.seconds += now - began
            began = now
            if now - saved > SAVE_EVERY and step + 1 < self._steps:
                self._save(record, optimiser)
                saved = now
            self._report(TrainingPosition(epoch, record.step, total, record.loss / (step + 1)))

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

    def _save(self, record: TrainingRecord, optimiser: torch.optim.Optimizer) -> None:
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
        states.save(self._folder, states.State(tensors, {**record.plain(), "identity": self._identity}))

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
