"""The loop, the teacher and EDP's stage on a GPU: what they give on the processor. Skipped where there is no GPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgekron.processes import Processes
from edgekron.training import (
    Augmentation,
    GraphModule,
    KnowledgeTransfer,
    ResponseCache,
    Trainer,
    TrainingSettings,
    begin_norms,
    joined,
)
from edgekron.training.edp.aware import CompressedAware
from edgekron.training.edp.result import finished
from tests.networks import compressed, hub, images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

DEVICES = [torch.device("cpu"), torch.device("cuda", 0)]
SETTINGS = TrainingSettings(
    epochs=2, batch=16, learning_rate=0.02, precision="float32", augmentation=Augmentation(1, flip=True)
)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Products of float32 as such: a GPU would round what it multiplies to eleven bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def few() -> np.ndarray:
    return images(64).fetch(np.arange(64))


def trained(module, device, *, settings=SETTINGS, after_step=lambda *_: False, **options):
    rest, held = images(320).split(0.2, 0)
    return Trainer(module, rest, held, settings, processes=Processes(0, 1, device), **options).run(
        after_step=after_step
    )


def test_a_process_alone_takes_the_gpu_and_says_so():
    with joined() as processes:
        assert processes.device == DEVICES[1]
        assert processes.device_name == torch.cuda.get_device_name()


@pytest.mark.parametrize("taught", [False, True])
def test_training_gives_what_it_gives_on_the_processor(taught):
    module = GraphModule(compressed("low-rank"), normalise=True)
    begin_norms(module, [few()])
    losses, weights = [], []
    for device in DEVICES:
        student, objective = copy.deepcopy(module), None
        if taught:
            # Made before the student moves.
            teacher = GraphModule(hub())
            objective = KnowledgeTransfer(student, teacher, torch.from_numpy(few()), cache=ResponseCache(320, 2))
        outcome = trained(student, device, objective=objective)
        losses.append(outcome.best.loss)
        weights.append(torch.cat([p.detach().cpu().reshape(-1) for p in student.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert float((weights[1] - weights[0]).norm() / weights[0].norm()) < 1e-3


def test_mixed_precision_learns():
    module = GraphModule(compressed("low-rank"), normalise=True).to(DEVICES[1])
    begin_norms(module, [few()])
    settings = TrainingSettings(
        epochs=2, batch=16, learning_rate=0.02, precision="bfloat16", augmentation=Augmentation()
    )
    outcome = trained(module, DEVICES[1], settings=settings)
    assert outcome.best.loss < outcome.before.loss


def test_a_state_of_the_gpu_is_taken_up_on_the_processor(tmp_path):
    module = GraphModule(compressed("low-rank"), normalise=True)
    begin_norms(module, [few()])
    one, other = copy.deepcopy(module), copy.deepcopy(module)
    outcome = trained(one, DEVICES[1], folder=tmp_path)
    again = trained(other, DEVICES[0], folder=tmp_path)
    assert again == outcome
    assert all(torch.equal(a.cpu(), b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_edp_learns_on_the_gpu_and_what_is_left_gives_the_same():
    network = hub()
    module = GraphModule(network, normalise=True).to(DEVICES[1])
    begin_norms(module, [few()])
    x = torch.from_numpy(few()).to(DEVICES[1])
    settings = TrainingSettings(epochs=6, batch=16, learning_rate=0.05, keep_last=True, precision="float32")
    aware = CompressedAware(module, network, {"macs": 2.0}, x, learning_rate=settings.learning_rate)
    trained(module, DEVICES[1], settings=settings, after_step=aware.step)
    assert aware.settled
    result = finished(network, module, aware, "it")
    assert result.report.macs.ratio >= 2.0
    with torch.no_grad():
        whole, left = module.cpu().eval()(x.cpu()), GraphModule(result.hub).eval()(x.cpu())
    assert float((whole - left).abs().max() / whole.abs().max()) < 1e-5
