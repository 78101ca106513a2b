"""The training loop: it learns, is taken up again exactly, shares its work, and says what is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edgekron.errors import UserError
from edgekron.planning.plan import CompressionPlan
from edgekron.training import (
    Augmentation,
    Examples,
    GraphModule,
    Processes,
    Scores,
    Trainer,
    TrainingOutcome,
    TrainingPosition,
    TrainingSettings,
    begin_norms,
    from_arrays,
    trainer,
)
from edgekron.training.gradual import plan_of_round
from edgekron.training.results import TrainingRecord
from tests.networks import compressed, images, tiny

ALONE = Processes(0, 1, torch.device("cpu"))
SETTINGS = TrainingSettings(
    epochs=3,
    batch=8,
    learning_rate=0.05,
    ema=0.9,
    precision="float32",
    augmentation=Augmentation(1, flip=True, erase=2),
)

QUICK = TrainingSettings(epochs=8, batch=16, learning_rate=0.1, ema=0.8)


def student() -> GraphModule:
    module = GraphModule(compressed(), normalise=True)
    begin_norms(module, [images().fetch(np.arange(16))])
    return module


def train(
    module: nn.Module,
    settings: TrainingSettings = SETTINGS,
    *,
    examples: Examples | None = None,
    folder: Path | None = None,
    report: Callable[[TrainingPosition], None] = lambda progress: None,
    **identity: str,
) -> TrainingOutcome:
    rest, held = (examples or images()).split(0.25, 0)
    options = {"processes": ALONE, "folder": folder, "identity": identity}
    return Trainer(module, rest, held, settings, **options).run(report=report)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_compressed_network_learns():
    outcome = train(student(), QUICK, examples=images(320))
    assert outcome.best.top1 > outcome.before.top1 + 20
    assert outcome.best.loss < outcome.before.loss
    assert outcome.devices == (ALONE.device_name,)


def test_a_plain_module_learns_by_the_same_loop():
    outcome = train(tiny(), QUICK, examples=images(320))
    assert outcome.best.top1 > outcome.before.top1 + 20


class Killed(BaseException):
    """The power goes."""


@pytest.mark.thorough
@pytest.mark.parametrize("step", [2, 4, 5, 9])
def test_taken_up_again_after_being_killed_it_is_the_same(step, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    whole = student()
    expected = train(whole, folder=tmp_path / "whole")

    def kill(progress: TrainingPosition) -> None:
        if progress.step == step and progress.scores is None:
            raise Killed

    with pytest.raises(Killed):
        train(student(), folder=tmp_path / "killed", report=kill)
    # Anything but the state on disk is forgotten.
    torch.manual_seed(12345)
    again = student()
    found = train(again, folder=tmp_path / "killed")
    assert (found.best, found.before, found.best_epoch) == (expected.best, expected.before, expected.best_epoch)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "killed")]
    ours, theirs = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert ours == theirs
    assert [line["epoch"] for line in ours] == [1, 2, 3]


def test_early_stopping_keeps_the_best(tmp_path):
    settings = replace(SETTINGS, epochs=30, patience=2, learning_rate=1e-12)
    # Once stopped, it stays so when the run is taken up again.
    for _ in range(2):
        module = GraphModule(compressed())
        before = weights(module)
        outcome = train(module, settings, folder=tmp_path)
        assert (outcome.stopped_early, outcome.epochs, outcome.best_epoch) == (True, 2, 0)
        assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_the_learning_rate_warms_up_and_falls():
    settings = TrainingSettings(epochs=4, learning_rate=0.1, warmup_epochs=1, restart_epochs=2, restart_rate=0.05)
    rates = [settings.rate(e) for e in (0, 0.5, 2, 4, 5, 6)]
    assert rates == pytest.approx([0, 0.5 * 0.0961940, 0.05, 0.05, 0.025, 0], abs=1e-6)


def test_draws_belong_to_variant_and_row():
    augmentation = Augmentation(2, flip=True, erase=3)
    draws = augmentation.draws(10, 8, 8, seed=4)
    assert torch.equal(draws, augmentation.draws(10, 8, 8, seed=4))
    assert not torch.equal(draws, augmentation.draws(10, 8, 8, seed=5))
    x = torch.randn(10, 1, 8, 8)
    some = torch.tensor([7, 2])
    assert torch.equal(augmentation.apply(x, draws)[some], augmentation.apply(x[some], draws[some]))


def test_crops_and_flips_move_pixels():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    moved = Augmentation(1, flip=True).apply(x, torch.tensor([[0, 1, 1, 0, 0]], dtype=torch.int16))
    assert moved[0, 0].tolist() == [[0, 0, 0], [2, 1, 0], [5, 4, 3]]
    erased = Augmentation(erase=2).apply(x + 1, torch.tensor([[0, 0, 0, 1, 1]], dtype=torch.int16))
    assert erased[0, 0].tolist() == [[0, 0, 3], [0, 0, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("settings", "identity", "word"),
    [
        (replace(SETTINGS, batch=4), {}, "settings"),
        (SETTINGS, {"network": "another plan"}, "network"),
        (SETTINGS, {"network": "one", "teacher": "resnet20"}, "teacher"),
    ],
)
def test_a_state_of_something_else_is_refused(settings, identity, word, tmp_path):
    train(student(), replace(SETTINGS, epochs=3), folder=tmp_path, network="one")
    with pytest.raises(UserError, match=f"state of another training: .*{word}.* differ"):
        train(student(), settings, folder=tmp_path, **({"network": "one"} | identity))


def test_a_record_comes_back_from_its_state_and_from_an_older_one():
    record = TrainingRecord(Scores(None, 1.0), Scores(50.0, 0.5), 7, 3, 2.5, 1, 4.0, ["a processor"])
    plain = json.loads(json.dumps(record.plain()))
    assert TrainingRecord.read({**plain, "identity": {}}) == record
    older = {"step": 7, "seconds": 2.5, "best_epoch": 1, "before": [None, 1.0], "best": [50.0, 0.5], "identity": {}}
    assert TrainingRecord.read(older) == replace(record, averaged_from=0, loss=0.0, devices=[])


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="state.safetensors cannot be read"):
        train(student(), folder=tmp_path)


def test_a_loss_that_is_not_finite_names_the_layer_and_keeps_the_state(tmp_path):
    module = student()

    def spoil(progress: TrainingPosition) -> None:
        if progress.step == 7:
            with torch.no_grad():
                next(iter(module.get_submodule(module.layers["block"]).parameters())).fill_(torch.nan)

    with pytest.raises(
        UserError, match="no longer finite in step 4 of epoch 2, first in layer block; .*lower learning rate takes up"
    ):
        train(module, folder=tmp_path, report=spoil)
    kept = safetensors.torch.load_file(tmp_path / "state.safetensors")
    assert all(torch.isfinite(value.float()).all() for value in kept.values())
    resumed = student()
    outcome = train(resumed, replace(SETTINGS, learning_rate=0.01), folder=tmp_path)
    assert outcome.epochs == 3


def test_too_few_images():
    with pytest.raises(UserError, match="fewer than a batch of 8"):
        train(student(), examples=images(8))
    with pytest.raises(UserError, match="at least two"):
        images(1).split(0.5, 0)


def test_images_without_labels_are_judged_by_the_objective():
    plain = images()
    unknown = from_arrays("unknown", plain.fetch(plain.rows))
    rest, held = unknown.split(0.25, 0)
    module = student()

    def objective(x: Tensor, output: Tensor, labels: Tensor, rows: Tensor, variant: int) -> Tensor:
        return output.square().mean()

    outcome = Trainer(module, rest, held, SETTINGS, processes=ALONE, objective=objective).run()
    assert outcome.best.top1 is None
    assert outcome.best.loss < outcome.before.loss


WORKER = """
import sys
import safetensors.torch, torch
torch.set_num_threads(1)
from tests.training.test_training import SETTINGS, images, student
from edgekron.training import Trainer, joined
module = student()
rest, held = images().split(0.25, 0)
with joined() as processes:
    outcome = Trainer(module, rest, held, SETTINGS, processes=processes).run()
    if processes.first:
        safetensors.torch.save_file(module.state_dict(), sys.argv[1], {"top1": str(outcome.best.top1)})
    processes.wait()
"""


def together(script: str, tmp_path: Path) -> list[tuple[int, str]]:
    """Exit code and output of two processes that run ``script`` as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", script, str(tmp_path / "two.safetensors")]
    workers = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [worker.communicate()[0] for worker in workers]
    return [(worker.returncode, text) for worker, text in zip(workers, said, strict=True)]


@pytest.mark.thorough
def test_two_processes_give_the_result_of_one(tmp_path):
    results = together(WORKER, tmp_path)
    assert [code for code, _ in results] == [0, 0], results
    module = student()
    outcome = train(module)
    path = tmp_path / "two.safetensors"
    two = safetensors.torch.load_file(path)
    assert max(float((two[name] - value).abs().max()) for name, value in weights(module).items()) < 1e-4
    with safetensors.safe_open(path, "pt") as file:
        assert float(file.metadata()["top1"]) == outcome.best.top1


GONE = """
import os
class Gone:
    def __call__(self, progress):
        if progress.step == 2 and processes.rank == 1:
            os._exit(9)
from edgekron.errors import UserError
module = student()
rest, held = images().split(0.25, 0)
try:
    with joined() as processes:
        Trainer(module, rest, held, SETTINGS, processes=processes).run(report=Gone())
except UserError as error:
    print(error, flush=True)
    os._exit(2)
"""


@pytest.mark.thorough
def test_a_process_that_is_gone_is_said(tmp_path):
    head = WORKER[: WORKER.index("module = student()")]
    results = together(head + GONE, tmp_path)
    assert [code for code, _ in results] == [2, 9]
    assert "another process is gone; run the same command again" in results[0][1]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="a batch of 7 images cannot be shared by 2 processes"):
        Processes(0, 2, torch.device("cpu")).share(torch.arange(7))


def test_ranks_of_rounds_fall_to_those_of_the_plan():
    text = """
    version = 1
    model = "tiny"
    [layers.block]
    method = "tucker"
    shape = "f 8, c 8, h 3, w 3"
    rank = [2, 6]
    [layers.classifier]
    method = "dense"
    """
    plan = CompressionPlan.from_toml(text)
    found = [plan_of_round(plan, number, 3).layers["block"].ranks for number in (1, 2, 3)]
    assert found == [(4, 8), (3, 8), (2, 6)]
    assert plan_of_round(plan, 3, 3) == plan
