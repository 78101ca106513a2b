"""Knowledge transfer: its formulas, what is aligned with what, and what is kept of the teacher."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekron.errors import UserError
from edgekron.graph import load
from edgekron.modules.factorize import factorize_module
from edgekron.training import PRESETS, GraphModule, KnowledgeTransfer, ResponseCache, Weights
from edgekron.training.pooling import pooled
from tests.networks import SHAPE, compressed, hub, images, tiny

X = torch.from_numpy(images().fetch(np.arange(10)))
LABELS = torch.from_numpy(images().labels[:10])


def pair() -> tuple[GraphModule, GraphModule]:
    return GraphModule(compressed(ratio=2.5)).eval(), GraphModule(hub())


def test_the_published_loss():
    student, teacher = pair()
    transfer = KnowledgeTransfer(
        student, teacher, X, weights=PRESETS["lrdkt"], hints=["down", "block"], precision="float32"
    )
    y = student(X)
    loss = transfer(X, y, LABELS)
    t = teacher(X)
    expected = F.cross_entropy(y, LABELS)
    expected += 0.003 * F.kl_div((y / 5).log_softmax(1), (t / 5).softmax(1), reduction="batchmean")
    for name in ("block", "down"):
        layer = next(x for x in hub().layers() if x.name == name)
        (ours,), (theirs,) = (net.run({net.input_name: X}, [layer.output]) for net in (student, teacher))
        expected += 0.0005 * (ours - theirs).square().sum() / (2 * ours.numel())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_soft_term_is_scaled_by_the_squared_temperature():
    student, teacher = GraphModule(compressed()), GraphModule(load(tiny(seed=1), input_shape=SHAPE))
    weights = Weights(label=0.0, soft=1.0, temperature=3.0, hint=0.0)
    loss = KnowledgeTransfer(student, teacher, X, weights=weights, precision="float32")(X, student(X), None)
    t, y = (teacher(X) / 3).softmax(1), (student(X) / 3).log_softmax(1)
    assert loss.item() == pytest.approx(9 * F.kl_div(y, t, reduction="batchmean").item(), rel=5e-3)


def test_a_network_has_nothing_to_learn_from_itself():
    network = GraphModule(hub()).eval()
    weights = Weights(label=0.0)
    loss = KnowledgeTransfer(network, GraphModule(hub()), X, weights=weights, precision="float32")(X, network(X), None)
    assert abs(loss.item()) < 1e-5


def test_hints_are_the_last_layers_of_each_resolution():
    assert KnowledgeTransfer(*pair(), X).hints == ("block", "down")


def test_modules_of_the_users_own_are_aligned_behind_their_normalisations():
    teacher = tiny()
    student = factorize_module(copy.deepcopy(teacher), compressed(ratio=2.5))
    transfer = KnowledgeTransfer(student, teacher, X)
    assert transfer.hints == ("norm2",)
    loss = transfer(X, student(X), LABELS)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert float(student.get_submodule("block").factors[0].grad.norm()) > 0


def test_three_lines_in_a_loop_of_ones_own_lower_the_loss():
    teacher = tiny()
    student = factorize_module(copy.deepcopy(teacher), compressed(ratio=2.5)).train()
    optimiser = torch.optim.SGD(student.parameters(), 0.02)
    transfer = KnowledgeTransfer(student, teacher, X, weights=Weights(label=0.0))
    losses = []
    for _ in range(30):
        loss = transfer(X, student(X), LABELS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("hints", "teacher", "match"),
    [
        (["block", "nowhere"], hub, r"cannot be aligned: nowhere \(the network has none\)"),
        (None, lambda: hub(classes=4), r"the teacher gives \[4\] for each image and the network \[3\]"),
    ],
)
def test_what_does_not_fit_is_named(hints, teacher, match):
    with pytest.raises(UserError, match=match):
        KnowledgeTransfer(GraphModule(compressed()), GraphModule(teacher()), X, hints=hints)


def test_a_teacher_without_common_layers_is_refused_with_its_layers():
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3))
    with pytest.raises(UserError, match="whose layers are 1, 2"):
        KnowledgeTransfer(GraphModule(compressed()), other, X)
    assert KnowledgeTransfer(GraphModule(compressed()), other, X, hints=[]).hints == ()


def test_images_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"does not take images of shape \[2, 8, 8\]"):
        KnowledgeTransfer(*pair(), torch.zeros(2, 2, 8, 8))


@pytest.mark.parametrize(("limit", "asked"), [(None, 2), (100, 3)])
def test_answers_are_kept_where_there_is_room_and_are_the_same(limit, asked):
    student, teacher = pair()
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    transfer = KnowledgeTransfer(student, teacher, X, cache=ResponseCache(10, 2, limit))
    calls.clear()
    y = student(X)
    rows = torch.arange(10)
    losses = [transfer(X, y, LABELS, rows, variant).item() for variant in (0, 1, 0)]
    assert losses[0] == losses[1] == losses[2]
    assert len(calls) == asked


@pytest.mark.parametrize("size", [(28, 28), (14, 14), (7, 7), (3, 3), (5, 9), (1, 6), (13, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_by_a_product_is_adaptive_pooling(size, layout):
    x = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    wanted = torch.nn.functional.adaptive_avg_pool2d(x, tuple(min(4, n) for n in size)).flatten(2)
    torch.testing.assert_close(pooled(x, 4), wanted, rtol=1e-5, atol=1e-6)
