"""One training session, as a ``TrainingRequest`` describes it: in one stage, in rounds, or by EDP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgekron.compression.compressor import Compression
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.modules.graph_module import GraphModule
from edgekron.processes import Processes, Progress

from .edp.aware import CompressedAware
from .edp.result import finished
from .examples import Examples
from .finetuned import Finetuned, Learnt
from .gradual import compress_again, plan_of_round
from .request import TrainingRequest
from .responses import ResponseCache
from .results import TrainingOutcome, TrainingPosition
from .settings import TrainingSettings
from .state import LOG
from .statistics import begin_norms
from .trainer import AfterStep, Trainer
from .transfer import PRESETS, KnowledgeTransfer
from .unlabelled import before_training

#: Images that normalisations begin with, and that rounds are fitted to.
_BEGIN = 512
#: How much rounding moves outputs, at most, when channels that are zero are removed.
_EXACT = 1e-4

#: (number, count) of a round; None where there is one alone.
Round = tuple[int, int] | None
#: Called with the position of a run after each step and each epoch, and with the round that the run belongs to.
SessionListener = Callable[[TrainingPosition, Round], None]


class Training:
    """Trains ``compression`` on ``examples``, against ``teacher`` if there is one.

    The state is kept in the folder ``state``; a session of the same request takes it up again. ``progress`` is called
    during the work without labels, ``listener`` during training.
    """

    def __init__(
        self,
        request: TrainingRequest,
        compression: Compression,
        examples: Examples,
        teacher: Hub | None,
        state: Path,
        *,
        processes: Processes,
        progress: Progress = lambda what, done, total: None,
        listener: SessionListener = lambda position, number: None,
    ) -> None:
        self._request, self._compression, self._examples, self._teacher = request, compression, examples, teacher
        self._state, self._processes, self._progress, self._listener = state, processes, progress, listener
        network = compression.hub.proto().SerializeToString(deterministic=True)
        self._network = hashlib.sha256(network).hexdigest()

    def run(self) -> Finetuned:
        """Does all that the request asks for. Raises ``UserError``."""
        request, compression = self._request, self._compression
        blocks, hub = None, compression.hub
        if self._teacher is not None and request.unlabelled:
            hub, blocks = before_training(
                hub, self._teacher, self._examples, request, self._state, self._processes, self._progress
            )
        if request.ratios:
            return self._learnt(hub)
        outcomes: tuple[TrainingOutcome, ...] = ()
        if request.rounds > 1:
            hub, outcomes = self._in_rounds()
        elif request.epochs:
            hub, outcome = self._once(hub)
            outcomes = (outcome,)
        return Finetuned(replace(compression, hub=hub), blocks, outcomes)

    def log(self) -> str:
        """The log of all that was done, the lines of rounds with the round's number."""
        rounds = sorted(self._state.glob(f"round*/{LOG}"), key=lambda path: int(path.parent.name[5:]))
        if not rounds:
            return (self._state / LOG).read_text()
        lines = [
            json.dumps({"round": number, **json.loads(line)})
            for number, path in enumerate(rounds, 1)
            for line in path.read_text().splitlines()
        ]
        return "\n".join(lines) + "\n"

    def _once(self, hub: Hub, number: Round = None) -> tuple[Hub, TrainingOutcome]:
        """The trained hub, and the outcome."""
        module, few = self._module_of(hub)
        outcome = self._train(module, few, self._request.settings(hub.input_shape), number=number)
        return module.to_hub(), outcome

    def _in_rounds(self) -> tuple[Hub, tuple[TrainingOutcome, ...]]:
        """The teacher compressed and trained in rounds, the last by the plan itself, and each round's outcome.

        A finished round is kept beside the state, and not done again.
        """
        if self._teacher is None:
            raise AssertionError("rounds without a teacher; the request is checked before")
        hub, count, plan = self._teacher, self._request.rounds, self._compression.plan
        few = self._examples.fetch(self._few())
        data = [few[i : i + 32] for i in range(0, len(few), 32)]
        outcomes = []
        for number in range(1, count + 1):
            folder, tightened = self._folder((number, count)), plan_of_round(plan, number, count)
            digest = hashlib.sha256(tightened.to_toml().encode()).hexdigest()[:12]
            begin, end, record = folder / f"begin-{digest}.onnx", folder / "end.onnx", folder / "outcome.json"
            if self._processes.first and not begin.exists():
                compress_again(hub, tightened, data).save(begin)
            self._processes.wait()
            if not record.exists():
                hub, outcome = self._once(Hub.open(begin), (number, count))
                if self._processes.first:
                    hub.save(end, force=True)
                    write_file(record, json.dumps(outcome.facts()), force=True)
                self._processes.wait()
            hub = Hub.open(end)
            outcomes.append(TrainingOutcome.read(json.loads(record.read_text())))
        return hub, tuple(outcomes)

    def _learnt(self, hub: Hub) -> Finetuned:
        """``hub`` with the ranks and channels that EDP learns."""
        request = self._request
        module, few = self._module_of(hub)
        images = torch.from_numpy(few).to(self._processes.device)
        settings = request.settings(hub.input_shape)
        aware = CompressedAware(
            module, hub, request.ratios, images, learning_rate=settings.learning_rate, any_width=request.any_width
        )
        outcome = self._train(module, few, settings, after_step=aware.step)
        result = finished(hub, module, aware, self._compression.plan.model)
        # The channels that were removed were of no use: without them the network gives the same. A GPU rounds too much.
        with torch.no_grad():
            whole, left = (part.cpu().eval()(images[:64].cpu()) for part in (module, GraphModule(result.hub)))
        moved = float((left - whole).abs().max() / whole.abs().max().clamp_min(1e-30))
        if moved > _EXACT:
            raise UserError(
                f"what edp removed moves the outputs by {100 * moved:.2g} %: an operator of {request.source} makes "
                "something of channels that are zero; prune it by `edgekron compress --method absorb` instead."
            )
        learnt = Learnt(request.ratios, aware.forced, aware.rounded, moved)
        return Finetuned(result, None, (outcome,), learnt)

    def _few(self) -> np.ndarray:
        """Rows of a few training images, drawn, for a folder has them by class."""
        rest, _ = self._examples.split(self._request.held_out, self._request.seed)
        return np.random.default_rng(self._request.seed).permutation(rest.rows)[:_BEGIN]

    def _module_of(self, hub: Hub) -> tuple[GraphModule, np.ndarray]:
        """The module of a hub with its normalisations begun, and the few images that they were begun with."""
        module = GraphModule(hub, normalise=self._request.normalise).to(self._processes.device)
        few = self._examples.fetch(self._few())
        begin_norms(module, [few[i : i + 64] for i in range(0, len(few), 64)])
        self._check_classes(module(torch.from_numpy(few[:1]).to(self._processes.device)))
        return module, few

    def _train(
        self,
        module: GraphModule,
        few: np.ndarray,
        settings: TrainingSettings,
        *,
        number: Round = None,
        after_step: AfterStep = lambda rate, step, steps: False,
    ) -> TrainingOutcome:
        request, identity, objective = self._request, self._identity(), None
        if self._teacher is not None:
            objective = KnowledgeTransfer(
                module,
                GraphModule(self._teacher),
                torch.from_numpy(few),
                hints=request.hints,
                weights=PRESETS[request.transfer],
                cache=ResponseCache(len(self._examples.labels), settings.variants),
                precision=settings.precision,
            )
            identity["transfer"] = objective.facts()
        rest, held_out = self._examples.split(request.held_out, request.seed)
        trainer = Trainer(
            module,
            rest,
            held_out,
            settings,
            processes=self._processes,
            objective=objective,
            folder=self._folder(number),
            identity=identity,
        )
        return trainer.run(after_step=after_step, report=lambda position: self._listener(position, number))

    def _folder(self, number: Round) -> Path:
        """Where the state of a round is kept."""
        return self._state if number is None else self._state / f"round{number[0]}"

    def _identity(self) -> dict[str, object]:
        """The facts that a state must share with this session for its training to be taken up again."""
        request = self._request
        identity: dict[str, object] = {
            "network": self._network,
            "reconstruct": request.reconstruct,
            "correct": request.correct,
            "rounds": request.rounds,
            "teacher": request.teacher,
            "normalise": request.normalise,
        }
        if request.ratios:
            identity |= {"edp": dict(request.ratios), "any_width": request.any_width}
        return identity

    def _check_classes(self, output: torch.Tensor) -> None:
        highest, classes = int(self._examples.labels.max()), output.shape[-1]
        if highest >= classes:
            raise UserError(
                f"{self._examples.name} has labels up to {highest}, and the network of {self._request.source} has "
                f"{classes} classes; give data of these classes."
            )
