"""EDP's training stage: exact at the start, down to the budget, nothing lost by what is removed, taken up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edgekron.compression.compressor import Compression, apply_plan
from edgekron.errors import UserError
from edgekron.graph import Hub, load
from edgekron.planning.plan import CompressionPlan
from edgekron.planning.ranks import rounded
from edgekron.training import (
    Augmentation,
    GraphModule,
    Trainer,
    TrainingOutcome,
    TrainingSettings,
    begin_norms,
    trainer,
)
from edgekron.training.edp import aware as stage
from edgekron.training.edp.aware import CompressedAware
from edgekron.training.edp.measures import losses
from edgekron.training.edp.result import finished
from tests.networks import compressed, hub, images, onnx_output
from tests.training.test_training import ALONE, Killed, together, weights

SETTINGS = TrainingSettings(
    epochs=6, batch=16, learning_rate=0.05, keep_last=True, precision="float32", augmentation=Augmentation()
)


class Gated(nn.Module):
    """Depthwise layers with a bias, a gate over channels, a residual sum, and a hidden layer without a window."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.expand, self.depthwise = nn.Conv2d(12, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.project = nn.Conv2d(24, 12, 1)
        self.squeeze, self.excite = nn.Linear(12, 8), nn.Linear(8, 12)
        self.pairs = nn.Conv2d(12, 16, 3, stride=2, groups=2)
        self.hidden, self.classifier = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem(x))
        y = self.project(nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x)))))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3))))))
        x = x + y * gate[:, :, None, None]
        return self.classifier(torch.relu(self.hidden(torch.relu(self.pairs(x)).mean((2, 3)))))


def gated() -> Hub:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(Gated().eval(), input_shape=(1, 8, 8))


class Odd(nn.Module):
    """What makes edp careful: maps behind a sigmoid, a transposed layer, halves that are told apart, and a sum to which
    one side adds a constant.
    """

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.stem, self.gated = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 10, 3, padding=1)
        self.up, self.down = nn.ConvTranspose2d(10, 6, 2, stride=2), nn.Conv2d(6, 24, 3, stride=2, padding=1)
        self.side, self.shift = nn.Conv2d(12, 12, 3, padding=1), nn.Parameter(torch.full((1, 24, 1, 1), constant))
        self.last, self.classifier = nn.Conv2d(24, 16, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.gated(torch.relu(self.stem(x))))
        left, right = torch.relu(self.down(torch.relu(self.up(x)))).split(12, 1)
        x = torch.cat([left, torch.relu(self.side(right))], 1) + self.shift
        return self.classifier(torch.relu(self.last(x)).mean((2, 3)))


def odd(constant: float = 1.0) -> Hub:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(Odd(constant).eval(), input_shape=(1, 8, 8))


def halves() -> Hub:
    """Without the constant, channels of both halves may go, but not all of one."""
    return odd(0.0)


def opened(
    network: Hub, ratios: dict[str, float], *, normalise: bool = True, any_width: bool = False
) -> tuple[GraphModule, CompressedAware]:
    module = GraphModule(network, normalise=normalise)
    few = images(64).fetch(np.arange(64))
    begin_norms(module, [few])
    x = torch.from_numpy(few)
    aware = CompressedAware(module, network, ratios, x, learning_rate=SETTINGS.learning_rate, any_width=any_width)
    return module, aware


def train(
    module: GraphModule, aware: CompressedAware, *, folder: Path | None = None, **how: Callable[..., None]
) -> TrainingOutcome:
    rest, held = images(320).split(0.2, 0)
    return Trainer(module, rest, held, SETTINGS, processes=ALONE, folder=folder).run(after_step=aware.step, **how)


def learnt(
    network: Hub, ratios: dict[str, float], **how: bool
) -> tuple[GraphModule, Compression, TrainingOutcome, CompressedAware]:
    module, aware = opened(network, ratios, **how)
    outcome = train(module, aware)
    assert aware.settled
    return module, finished(network, module, aware, "it"), outcome, aware


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("network", [hub, gated])
def test_blocks_are_exact_at_the_start(network, normalise):
    module, aware = opened(network(), {"macs": 2.0}, normalise=normalise)
    x = images(16, seed=3).fetch(np.arange(16))
    ours, wanted = module.eval()(torch.from_numpy(x)).detach().numpy(), onnx_output(network(), x)
    assert np.abs(ours - wanted).max() < 2e-6 * np.abs(wanted).max()
    assert not any(aware.dead().values())
    assert all(bool(layer.kernel.columns.all()) for layer in aware.layers.values())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("network", "ratios", "how"),
    [
        (hub, {"macs": 3.0}, {}),
        (hub, {"parameters": 2.5}, {}),
        (hub, {"macs": 2.0, "parameters": 3.0}, {"any_width": True}),
        (hub, {"macs": 2.5}, {"normalise": False}),
        (gated, {"macs": 2.5}, {}),
        (gated, {"macs": 2.0}, {"normalise": False}),
    ],
)
def test_the_budget_is_met_and_nothing_is_lost_by_what_is_removed(network, ratios, how):
    module, made, outcome, aware = learnt(network(), ratios, **how)
    # The penalty did it, and not the end of its time.
    assert aware.forced <= 0.3 * sum(len(layer.basis) for layer in aware.layers.values())
    for unit, ratio in ratios.items():
        found = getattr(made.report, unit)
        assert ratio <= found.ratio
        layers = made.hub.layers()
        stored = sum(
            layer.factorized.network.parameters if layer.factorized else layer.dense_parameters for layer in layers
        )
        assert unit == "macs" or found.compressed == stored
    # Not much more than was asked for goes, by the cost that was hardest to bring down.
    assert min(getattr(made.report, unit).ratio / ratio for unit, ratio in ratios.items()) < 1.6
    x = images(64, seed=5).fetch(np.arange(64))
    whole, left = module.eval()(torch.from_numpy(x)).detach().numpy(), onnx_output(made.hub, x)
    assert np.abs(left - whole).max() < 5e-6 * np.abs(whole).max()
    assert outcome.best.top1 > outcome.before.top1 + 20
    lines = CompressionPlan.from_toml(made.plan.to_toml()).layers
    assert any(line.channels for line in lines.values()) or any(line.ranks for line in lines.values())
    if not how.get("any_width"):
        assert all(rounded(n) == n for line in lines.values() for n in (line.channels, *line.ranks) if n)


@pytest.mark.thorough
def test_the_budget_is_met_where_channels_may_not_go_alone():
    """A reader of one half does not shrink as the group does, and each half keeps a channel."""
    _, made, _, aware = learnt(halves(), {"macs": 3.0})
    assert "down" in aware.dead()
    assert 3.0 <= made.report.macs.ratio < 3.6


def test_channels_that_make_something_of_nothing_stay():
    """Behind the sigmoid, and where a constant is added, only ranks are learnt."""
    module, made, _, aware = learnt(odd(), {"macs": 2.0})
    assert set(aware.dead()) == {"stem", "up", "last"}
    assert any(line.channels for line in made.plan.layers.values())
    x = images(16, seed=5).fetch(np.arange(16))
    whole, left = module.eval()(torch.from_numpy(x)).detach().numpy(), onnx_output(made.hub, x)
    assert np.abs(left - whole).max() < 5e-6 * np.abs(whole).max()


def test_a_number_that_does_not_run_well_stays_where_nothing_has_gone():
    class Wide(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(
                nn.Conv2d(1, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 20, 3, padding=1), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 3),
            )  # fmt: skip

    _, aware = opened(load(Wide().eval(), input_shape=(1, 8, 8)), {"macs": 1.3})
    aware.step(0.0, 1, 100)
    assert not aware.settled
    assert not any(aware.dead().values())


def perturbed(module: GraphModule) -> None:
    """Other weights than those it was opened with."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_the_scale_between_basis_and_coefficients_is_kept():
    module, aware = opened(gated(), {"macs": 2.0})
    perturbed(module)
    for layer in aware.layers.values():
        before = layer.block().kernel()
        layer.balance()
        torch.testing.assert_close(layer.block().kernel(), before, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.block().coefficients.norm(dim=0), torch.ones(len(layer.basis)))
        basis = layer.basis.clone()
        with torch.no_grad():
            layer.coefficients.mul_(3)
        layer.retract()
        torch.testing.assert_close(layer.basis, basis, rtol=0, atol=0)
        torch.testing.assert_close(layer.block().kernel(), before, rtol=1e-5, atol=1e-6)


def test_a_step_moves_the_kernel_as_one_on_the_kernel_would():
    """W' = A B' + A' B: of a step on the kernel by G, the basis gives A A^T G and the coefficients at most as much."""
    _, aware = opened(hub(), {"macs": 2.0})
    for layer in aware.layers.values():
        block = layer.block()
        slope = torch.randn(block.kernel().shape, generator=torch.Generator().manual_seed(0)).flatten(1)
        layer.operator.zero_grad()
        (layer.kernel(layer.basis, layer.coefficients).reshape(slope.shape) * slope).sum().backward()
        moved = block.coefficients @ layer.basis.grad.flatten(1)
        turned = layer.coefficients.grad @ block.basis.flatten(1) / layer.kernel.slowness
        assert moved.norm() <= slope.norm() * 1.001
        assert turned.norm() <= slope.norm() * 1.001


def test_responses_are_measured_as_they_are():
    module, aware = opened(gated(), {"macs": 2.0})
    perturbed(module)
    aware.step(0.0, 1, 100)
    x = torch.from_numpy(images(64).fetch(np.arange(64)))
    basis = aware.layers["stem"].basis.detach()
    wanted = nn.functional.conv2d(x, basis, padding=1).transpose(0, 1).flatten(1).std(1, correction=0)
    torch.testing.assert_close(aware.layers["stem"].deviations(), wanted, rtol=1e-4, atol=1e-6)


class Plain(nn.Module):
    """Nothing but sums of products, so that what is true to first order is true."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classifier = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.stem(x).mean((2, 3)))


def plain() -> Hub:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(Plain().eval(), input_shape=(1, 8, 8))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_loss_is_what_the_outputs_would_change_by(normalise):
    module, aware = opened(plain(), {"macs": 1.5}, normalise=normalise)
    module.eval()
    x = torch.from_numpy(images(64).fetch(np.arange(64)))
    layer, part = aware.layers["stem"], module.get_submodule("stem")
    columns, rows = losses(module, aware.layers, {"stem": part}, x)
    with torch.no_grad():
        whole = module(x)
        signs = torch.randint(0, 2, whole.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1

        def change() -> float:
            moved = whole - module(x)
            along = ((moved - moved.mean(0)) * signs / whole.std(0, correction=0)).sum(1)
            return float(along.square().mean().sqrt())

        for g in range(len(layer.basis)):
            layer.kernel.columns[g] = 0
            assert float(columns["stem"][g]) == pytest.approx(change(), rel=1e-3, abs=1e-5)
            layer.kernel.columns[g] = 1
        for f in range(6):
            hook = part.register_forward_hook(lambda _part, _inputs, y, f=f: y * (torch.arange(6) != f)[:, None, None])
            assert float(rows["stem"][f]) == pytest.approx(change(), rel=1e-3, abs=1e-5)
            hook.remove()
    assert float(columns["stem"].max()) > 0.01
    assert module.training is False
    assert not any(p.grad is not None for p in module.parameters())


def test_a_loss_does_not_depend_on_how_images_are_cut():
    """An image that is alone in the last piece counts as any other."""
    module, aware = opened(hub(), {"macs": 2.0})
    x = torch.from_numpy(images(65).fetch(np.arange(65)))
    parts = {"block": module.get_submodule("block")}
    (columns, rows), (others, lines) = (losses(module, aware.layers, parts, x[:n]) for n in (64, 65))
    for name, sizes in columns.items():
        torch.testing.assert_close(others[name], sizes, rtol=0.3, atol=0.05 * float(sizes.max()))
    torch.testing.assert_close(lines["block"], rows["block"], rtol=0.3, atol=0.05 * float(rows["block"].max()))


@pytest.mark.parametrize("taken", [1, 5])
def test_what_is_alive_when_all_is_settled_can_learn(taken):
    """A column that gets up again has a gradient; a channel that is zero stays so, for it would have none."""
    module, aware = opened(hub(), {"macs": 1.2})
    aware.step(0.0, 1, 1000)
    layer, group = aware.layers["down"], next(g for g in aware._groups if "down" not in g.layers)
    with torch.no_grad():
        layer.basis[:taken] = 0
        layer.kernel.columns[:taken] = 0
        for entries, roots in zip(aware._entries, aware._roots, strict=True):
            if entries.makes and entries.layer in group.layers:
                gone = aware._index(group.units)[:taken]
                entries.scale((~torch.isin(roots, gone)).float())
        aware._alive[aware._index(group.units)[:taken]] = 0
        aware._settle(aware._selection())
    aware.silence()
    assert aware.settled
    x = torch.from_numpy(images(64).fetch(np.arange(64)))
    module.train()(x).square().sum().backward()
    slopes = layer.basis.grad.flatten(1).norm(dim=1)
    assert bool((slopes > 0)[layer.kernel.columns.bool()].all())
    for name in group.layers:
        gain = module.get_submodule(name).norm.gain.detach()[torch.from_numpy(group.made[name])]
        alive = aware._alive[aware._index(group.units)].bool()
        assert bool((gain[alive] != 0).all())
        assert not gain[~alive].any()


@pytest.mark.thorough
def test_what_is_promised_is_reached():
    """A ratio that only numbers which do not run well would reach is refused."""

    def network(width: int) -> Hub:
        torch.manual_seed(0)
        layers = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        return load(
            nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)).eval(),
            input_shape=(1, 8, 8),
        )

    with pytest.raises(UserError, match=r"the best that this network can is (\d+\.\d+) times") as refused:
        opened(network(88), {"macs": 1000.0})
    best = float(str(refused.value).split("can is ")[1].split(" ")[0])
    _, aware = opened(network(88), {"macs": best - 0.01})
    aware.step(0.0, 1, 1)
    assert aware.settled
    assert aware._settling.meets(aware._selection())


def test_the_penalty_takes_from_gains_what_columns_lose():
    """With the running statistics of a normalisation that follows, a shrunk column changes the outputs by just that."""
    _, aware = opened(hub(), {"macs": 2.0})
    aware.step(0.0, 1, 100)
    name = "block"
    kernel = aware.block(name).kernel()
    factors = torch.linspace(1.0, 0.9, len(aware.layers[name].basis))
    wanted = torch.einsum("fr,rchw->fchw", aware.block(name).coefficients * factors, aware.layers[name].basis.detach())
    with torch.no_grad():
        before = aware.layers[name].output_deviations()
        aware.layers[name].basis.mul_(factors[:, None, None, None])
        aware._follow(name, before)
        after = aware.layers[name].output_deviations()
    torch.testing.assert_close(aware.block(name).kernel(), wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(wanted, kernel)


@pytest.mark.thorough
def test_columns_die_where_rows_cannot():
    """Maps behind a sigmoid, or with a constant added, keep all their channels; the ranks of their layers fall."""
    _, made, _, _ = learnt(odd(), {"macs": 2.0})
    lines = [made.plan.layers[name] for name in ("gated", "down", "side")]
    assert not any(line.channels for line in lines)
    assert any(line.method == "channel-svd" and line.ranks[0] < 8 for line in lines)


def test_the_average_forgets_the_network_before(monkeypatch):
    monkeypatch.setattr(stage, "EVERY", 10**6)
    module, aware = opened(hub(), {"macs": 3.0})
    settled: list[int] = []

    def step(rate: float, number: int, steps: int) -> bool:
        began = aware.step(rate, number, steps)
        if began and number > 1:
            settled.append(number)
            with torch.no_grad():
                module.get_submodule("classifier").bias.add_(1000.0)
        return began

    rest, held = images(320).split(0.2, 0)
    Trainer(module, rest, held, SETTINGS, processes=ALONE).run(after_step=step)
    assert len(settled) == 1
    assert float(module.get_submodule("classifier").bias.detach().min()) > 900


def test_what_the_penalty_has_not_taken_is_taken_at_once(monkeypatch):
    monkeypatch.setattr(stage, "START", 1e-9)
    monkeypatch.setattr(stage, "RANGE", 0.0)
    _, made, outcome, aware = learnt(hub(), {"macs": 3.0})
    assert aware.forced > 0
    assert made.report.macs.ratio >= 3.0
    assert outcome.best.top1 > outcome.before.top1 + 20


@pytest.mark.thorough
def test_taken_up_again_it_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(stage, "EVERY", 10)
    whole, aware = opened(hub(), {"macs": 3.0})
    train(whole, aware, folder=tmp_path / "whole")

    def kill(progress):
        if progress.step == 37 and progress.scores is None:
            raise Killed

    with pytest.raises(Killed):
        train(*opened(hub(), {"macs": 3.0}), folder=tmp_path / "killed", report=kill)
    again, resumed = opened(hub(), {"macs": 3.0})
    train(again, resumed, folder=tmp_path / "killed")
    assert resumed.settled
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


WORKER = """
import sys
import safetensors.torch, torch
torch.set_num_threads(1)
from tests.training.edp.test_aware import SETTINGS, hub, images, opened
from edgekron.training import Trainer, joined
module, aware = opened(hub(), {"macs": 3.0})
rest, held = images(320).split(0.2, 0)
with joined() as processes:
    Trainer(module, rest, held, SETTINGS, processes=processes).run(after_step=aware.step)
    if processes.first:
        safetensors.torch.save_file(module.state_dict(), sys.argv[1])
    processes.wait()
"""


@pytest.mark.thorough
def test_two_processes_learn_the_same_ranks_and_channels(tmp_path):
    results = together(WORKER, tmp_path)
    assert [code for code, _ in results] == [0, 0], results
    module, aware = opened(hub(), {"macs": 3.0})
    train(module, aware)
    two = safetensors.torch.load_file(tmp_path / "two.safetensors")
    ours = weights(module)
    alive = [name for name in ours if name.endswith(("columns", "edp_alive"))]
    assert len(alive) > 3
    assert all(torch.equal(two[name], ours[name]) for name in alive)


def test_bad_input():
    with pytest.raises(UserError, match=r"edp cannot reach 500 times fewer MACs; the best that this network can is \d"):
        opened(hub(), {"macs": 500.0})
    with pytest.raises(UserError, match="is compressed already; give edp the one that it was made of"):
        opened(compressed(), {"macs": 2.0})
    _, made, _, _ = learnt(hub(), {"macs": 3.0})
    assert made.plan.layers["stem"].criterion == "edp"
    with pytest.raises(UserError, match="channels of layer stem were learnt by edp together with its weights"):
        apply_plan(hub(), made.plan)
