"""One training, as the options of ``finetune`` describe it, and several in rounds."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekron.cli.shared.output import Steps, say
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.training import (
    PRESETS,
    Augmentation,
    Examples,
    GraphModule,
    KnowledgeTransfer,
    Processes,
    ResponseCache,
    Trainer,
    TrainingOutcome,
    TrainingPosition,
    TrainingSettings,
    begin_norms,
)
from edgekron.training.gradual import compress_again, plan_of_round

from .edp.aware import CompressedAware
from .edp.result import finished

if TYPE_CHECKING:
    from edgekron.compression.compressor import Compression
    from edgekron.planning.plan import CompressionPlan

#: Images that normalisations begin with, and that rounds are fitted to.
_BEGIN = 512
#: What rounding moves outputs by, at most, when channels that are zero are removed.
_EXACT = 1e-4
#: Versions of an image that a teacher looks at, unless it is said.
_VARIANTS = 8


def settings_of(arguments: argparse.Namespace, shape: tuple[int, ...]) -> TrainingSettings:
    """The settings for images of ``shape`` [C, H, W]. Raises ``UserError``."""
    words = arguments.augment.split(",")
    size = min(shape[1:], default=0)
    return TrainingSettings(
        epochs=arguments.epochs,
        batch=arguments.batch,
        learning_rate=arguments.lr,
        weight_decay=arguments.weight_decay,
        clip=arguments.clip,
        patience=arguments.patience,
        seed=arguments.seed,
        variants=arguments.variants if arguments.variants is not None else _VARIANTS * (arguments.teacher is not None),
        precision=arguments.precision,
        augmentation=Augmentation(size // 12 * ("crop" in words), "flip" in words, size // 5 * ("erase" in words)),
    )


class Training:
    """Trains hubs on ``examples``, against ``teacher`` if there is one, with the state in ``state``.

    ``network`` is a digest of what is trained, which the state is checked against.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        examples: Examples,
        teacher: Hub | None,
        state: Path,
        processes: Processes,
        bars: Steps,
        *,
        network: str,
    ) -> None:
        self._arguments, self._examples, self._teacher, self._network = arguments, examples, teacher, network
        self._state, self._processes, self._bars = state, processes, bars

    def once(self, hub: Hub, state: Path | None = None, note: str = "") -> tuple[Hub, TrainingOutcome]:
        """The trained hub, and what training came to. Raises ``UserError``."""
        module, few = self._module_of(hub)
        outcome = self._train(module, few, settings_of(self._arguments, hub.input_shape), state=state, note=note)
        return module.to_hub(), outcome

    def learnt(self, hub: Hub, model: str) -> tuple[Compression, TrainingOutcome, dict[str, Any]]:
        """``hub``, called ``model``, with the ranks and channels that EDP learns; what training came to, and facts.

        Raises ``UserError``.
        """
        arguments = self._arguments
        module, few = self._module_of(hub)
        images = torch.from_numpy(few).to(self._processes.device)
        # What is best before ranks and channels have gone is no candidate.
        settings = replace(settings_of(arguments, hub.input_shape), keep_last=True)
        ratios = {unit: ratio for unit, ratio in (("macs", arguments.ratio), ("parameters", arguments.params)) if ratio}
        aware = CompressedAware(
            module, hub, ratios, images, learning_rate=settings.learning_rate, any_width=arguments.any_width
        )
        identity = {"edp": ratios, "any_width": arguments.any_width}
        outcome = self._train(module, few, settings, after_step=aware.step, identity=identity)
        result = finished(hub, module, aware, model)
        # What is left gives what the trained module gives: nothing that was removed was of use. A GPU rounds too much.
        with torch.no_grad():
            whole, left = (part.cpu().eval()(images[:64].cpu()) for part in (module, GraphModule(result.hub)))
        moved = float((left - whole).abs().max() / whole.abs().max().clamp_min(1e-30))
        if moved > _EXACT:
            raise UserError(
                f"what edp removed moves the outputs by {100 * moved:.2g} %: an operator of {arguments.folder} makes "
                "something of channels that are zero; prune it by `edgekron compress --method absorb` instead."
            )
        taken = {"by_budget": aware.forced, "by_width": aware.rounded}
        return result, outcome, {"edp": ratios, "taken_at_once": taken, "moved_by_removal": moved}

    def _few(self) -> np.ndarray:
        """Rows of a few training images, drawn, for a folder has them by class."""
        rest, _ = self._examples.split(self._arguments.held_out, self._arguments.seed)
        return np.random.default_rng(self._arguments.seed).permutation(rest.rows)[:_BEGIN]

    def _module_of(self, hub: Hub) -> tuple[GraphModule, np.ndarray]:
        """The module of a hub with its normalisations begun, and the few images that they were begun with."""
        arguments, examples, processes = self._arguments, self._examples, self._processes
        module = GraphModule(hub, normalise=not arguments.plain).to(processes.device)
        few = examples.fetch(self._few())
        begin_norms(module, [few[i : i + 64] for i in range(0, len(few), 64)])
        self._check_classes(module(torch.from_numpy(few[:1]).to(processes.device)))
        return module, few

    def _train(
        self,
        module: GraphModule,
        few: np.ndarray,
        settings: TrainingSettings,
        *,
        state: Path | None = None,
        note: str = "",
        after_step: Callable[[float, int, int], bool] = lambda rate, step, steps: False,
        identity: Mapping[str, Any] | None = None,
    ) -> TrainingOutcome:
        arguments, examples, processes = self._arguments, self._examples, self._processes
        identity = {
            "network": self._network,
            "reconstruct": arguments.reconstruct,
            "correct": arguments.correct,
            "rounds": arguments.rounds,
            "teacher": arguments.teacher,
            "normalise": not arguments.plain,
            **(identity or {}),
        }
        objective = None
        if self._teacher is not None:
            names = None if arguments.hints is None else [n for n in arguments.hints.split(",") if n != "none"]
            objective = KnowledgeTransfer(
                module,
                GraphModule(self._teacher),
                torch.from_numpy(few),
                hints=names,
                weights=PRESETS[arguments.transfer],
                cache=ResponseCache(len(examples.labels), settings.variants),
                precision=settings.precision,
            )
            identity["transfer"] = objective.facts()

        def report(now: TrainingPosition) -> None:
            top1 = f", top-1 {now.scores.top1:.2f} %" if now.scores and now.scores.top1 is not None else ""
            self._bars(f"train{note}", now.step, now.steps, note=f"loss {now.loss:.4f}{top1}")
            if now.scores is not None and processes.first and not arguments.json:
                say(f"epoch {now.epoch}/{settings.epochs}{note}: loss {now.loss:.4f}{top1} on held-out images")

        rest, held_out = examples.split(arguments.held_out, arguments.seed)
        return Trainer(
            module,
            rest,
            held_out,
            settings,
            processes=processes,
            objective=objective,
            folder=state or self._state,
            identity=identity,
            after_step=after_step,
            report=report,
        ).run()

    def in_rounds(self, plan: CompressionPlan, rounds: int) -> tuple[Hub, list[dict[str, Any]]]:
        """The teacher compressed and trained in ``rounds``, the last by ``plan``, and what each round came to.

        A finished round is kept beside the state, and not done again.
        """
        if self._teacher is None:
            raise AssertionError("the options are checked before")
        hub, facts = self._teacher, []
        few = self._examples.fetch(self._few())
        data = [few[i : i + 32] for i in range(0, len(few), 32)]
        for number in range(1, rounds + 1):
            folder, tightened = self._state / f"round{number}", plan_of_round(plan, number, rounds)
            digest = hashlib.sha256(tightened.to_toml().encode()).hexdigest()[:12]
            begin, end, record = folder / f"begin-{digest}.onnx", folder / "end.onnx", folder / "outcome.json"
            if self._processes.first and not begin.exists():
                compress_again(hub, tightened, data).save(begin)
            self._processes.wait()
            if not record.exists():
                hub, outcome = self.once(Hub.open(begin), folder, f", round {number}/{rounds}")
                if self._processes.first:
                    hub.save(end, force=True)
                    write_file(record, json.dumps(outcome_facts(outcome)), force=True)
                self._processes.wait()
            hub = Hub.open(end)
            facts.append(json.loads(record.read_text()))
        return hub, facts

    def log(self) -> str:
        """The log of all that was done, the lines of rounds with the round's number."""
        rounds = sorted(self._state.glob("round*/log.jsonl"), key=lambda path: int(path.parent.name[5:]))
        if not rounds:
            return (self._state / "log.jsonl").read_text()
        lines = [
            json.dumps({"round": number, **json.loads(line)})
            for number, path in enumerate(rounds, 1)
            for line in path.read_text().splitlines()
        ]
        return "\n".join(lines) + "\n"

    def _check_classes(self, output: torch.Tensor) -> None:
        highest, classes = int(self._examples.labels.max()), output.shape[-1]
        if highest >= classes:
            raise UserError(
                f"{self._examples.name} has labels up to {highest}, and the network of {self._arguments.folder} has "
                f"{classes} classes; give data of these classes."
            )


def outcome_facts(outcome: TrainingOutcome) -> dict[str, Any]:
    """What training came to, as plain data."""
    return {
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "stopped_early": outcome.stopped_early,
        "seconds": round(outcome.seconds, 1),
        "held_out_top1": {"before": outcome.before.top1, "after": outcome.best.top1},
        "held_out_loss": {"before": outcome.before.loss, "after": outcome.best.loss},
        "device": ", ".join(outcome.devices),
    }
