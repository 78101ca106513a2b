"""Calibration walks and the whole compressor, on the trained six-convolution network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgekron import models
from edgekron.compression import artifact
from edgekron.compression.compressor import Compression, CompressionOptions, apply_plan, compress
from edgekron.errors import UserError
from edgekron.fitting.calibration import AT_ONCE, Walk, apply_kernel, sample
from edgekron.graph import Hub, load
from edgekron.graph.cost import cost
from edgekron.models import datasets
from edgekron.planning.candidates import ErrorBound
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.planning.ranks import Energy, Evbmf
from edgekron.structures import KroneckerShape


def outputs(hub: Hub, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(hub.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    value: np.ndarray = session.run(None, {hub.input_name: x})[0]
    return value


def accuracy(hub: Hub, count: int = 2000) -> float:
    images, labels = next(iter(datasets.load("fashion-mnist:test").subset(count).batches(count)))
    return 100 * float((outputs(hub, images).argmax(1) == labels).mean())


@pytest.fixture(scope="module")
def hub() -> Hub:
    return load(models.load("sixconv"), input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def data() -> list[np.ndarray]:
    return [x for x, _ in datasets.load("fashion-mnist:calibration").subset(512).batches(32)]


@pytest.fixture(scope="module")
def compressed(hub: Hub, data: list[np.ndarray]) -> Compression:
    return compress(hub, model="sixconv", ratios={"macs": 3.0, "parameters": 3.0}, data=data)


def test_walk_shows_every_layer_its_input(hub: Hub, data: list[np.ndarray]) -> None:
    with Walk(hub, data[:2]) as walk:
        for layer in hub.layers():
            walk.advance(layer)
            (wanted,) = (
                onnxruntime.InferenceSession(
                    hub.submodel([hub.input_name], [layer.input]).SerializeToString(),
                    providers=["CPUExecutionProvider"],
                ).run(None, {hub.input_name: data[1]})
                if layer.input != hub.input_name
                else (data[1],)
            )
            got = list(walk.values(layer.input))
            assert {len(piece) for piece in got} == {AT_ONCE}
            np.testing.assert_allclose(np.concatenate(got)[len(data[0]) :], wanted, atol=1e-5)
        np.testing.assert_allclose(walk.outputs(hub, len(data[0]))[0], outputs(hub, data[0]), atol=1e-4)
        folder = Path(walk._folder.name)
        # Nothing but what is alive at the cut: the classifier's input.
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


@pytest.mark.thorough
def test_walk_sees_layers_replaced_behind_it(hub: Hub, data: list[np.ndarray], compressed: Compression) -> None:
    trial = hub.copy()
    first = next(layer for layer in compressed.hub.layers() if layer.factorized)
    last = hub.layers()[-1]
    with Walk(trial, data[:1]) as walk:
        walk.advance(hub.layer(first.name))
        assert first.factorized is not None
        trial.factorize(first.name, first.factorized)
        walk.advance(hub.layer(last.name))
        got = np.concatenate(list(walk.values(last.input)))
    (wanted,) = onnxruntime.InferenceSession(
        trial.submodel([trial.input_name], [last.input]).SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {trial.input_name: data[0]})
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_sample_has_the_moments_of_all_patches(hub: Hub, data: list[np.ndarray]) -> None:
    layer = hub.layer("features.conv3_2")
    assert layer.kernel is not None
    kernel = torch.from_numpy(np.array(layer.kernel))
    with Walk(hub, data) as walk:
        walk.advance(layer)
        taken = sample(layer, kernel, walk, walk, seed=1)
        inputs = np.concatenate(list(walk.values(layer.input)))
    # Seven of eight images are fitted to, nine output positions each, all of them used.
    assert taken.moments.count == 448 * 9
    mean = taken.moments.mean_y
    y = np.concatenate(outputs_of(layer.output, hub, data))
    kept = y[np.arange(512) % 8 != 7]
    np.testing.assert_allclose(mean.numpy(), kept.mean((0, 2, 3)), atol=1e-3)
    assert taken.moments.yy == pytest.approx(float(kept.var(axis=(0, 2, 3)).sum()), rel=1e-3)
    assert layer.bias is not None
    assert taken.error(kernel, torch.from_numpy(layer.bias)) < 1e-8
    torch.testing.assert_close(taken.y, apply_kernel(taken.x, kernel) + torch.from_numpy(layer.bias))
    assert len(inputs) == 512


def outputs_of(name: str, hub: Hub, data: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        hub.submodel([hub.input_name], [name]).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [session.run(None, {hub.input_name: x})[0] for x in data]


def test_both_budgets_are_met_and_accuracy_kept(hub: Hub, compressed: Compression) -> None:
    for unit in ("macs", "parameters"):
        total = getattr(compressed.report, unit)
        now = sum(getattr(cost(layer), unit) for layer in compressed.hub.layers())
        assert now == total.compressed
        assert total.ratio == total.dense / now >= 3.0
        assert total.dense == sum(getattr(cost(layer), unit) for layer in hub.layers())
    assert accuracy(compressed.hub) >= accuracy(hub) - 1.5


def test_data_beat_weights_alone(hub: Hub, compressed: Compression) -> None:
    blind = apply_plan(hub, compressed.plan)
    images = datasets.load("fashion-mnist:test").subset(500)
    x = images.normalise(images.images)
    wanted = outputs(hub, x)
    blind_error, error = (np.square(outputs(h, x) - wanted).mean() for h in (blind.hub, compressed.hub))
    assert error < 0.5 * blind_error
    assert accuracy(blind.hub) < accuracy(compressed.hub)


@pytest.mark.parametrize("method", ["low-rank", "channel-svd", "tucker", "tt"])
def test_energy_takes_more_ranks_the_more_is_kept(hub: Hub, method: str) -> None:
    """The ranks of LRDKT's rule, read back from the kernels' own singular values."""
    made = {
        e: compress(hub, model="sixconv", ratios={}, options=CompressionOptions(Energy(e)), method=method)
        for e in (0.5, 0.8)
    }
    counts = [made[e].report.parameters.compressed for e in (0.5, 0.8)]
    assert counts[0] < counts[1] < made[0.8].report.parameters.dense
    rows = {n: r for n, r in made[0.5].report.layers.items() if r.method == method}
    assert len(rows) >= 4
    if method == "channel-svd":
        for name, row in rows.items():
            kernel = np.array(hub.layer(name).kernel)
            kept = np.cumsum(np.linalg.svd(kernel.reshape(len(kernel), -1), compute_uv=False) ** 2)
            assert row.rank == (1 + int((kept <= 0.5 * kept[-1]).sum()),)


def test_an_error_bound_holds_in_every_layer(hub: Hub) -> None:
    made = compress(hub, model="sixconv", ratios={}, options=CompressionOptions(ErrorBound(0.1)), method="low-rank")
    errors = [row.error for row in made.report.layers.values() if row.error is not None]
    assert errors
    assert max(errors) <= 0.1
    looser = compress(hub, model="sixconv", ratios={}, options=CompressionOptions(ErrorBound(0.3)), method="low-rank")
    assert looser.report.macs.ratio > made.report.macs.ratio > 1.0


@pytest.mark.parametrize(("rule", "method"), [(Evbmf(), "kronecker"), (Evbmf(), "auto"), (Energy(0.5), "tr")])
def test_rules_refuse_methods_that_they_cannot_read(hub: Hub, rule: Energy | Evbmf, method: str) -> None:
    with pytest.raises(UserError, match=f"choose one of these methods, or a ratio for {method}"):
        compress(hub, model="sixconv", ratios={}, options=CompressionOptions(rule), method=method)


def test_evbmf_leaves_no_layer_larger(hub: Hub) -> None:
    made = compress(hub, model="sixconv", ratios={}, options=CompressionOptions(Evbmf()), method="tucker")
    rows = [row for row in made.report.layers.values() if row.method == "tucker"]
    assert rows
    assert all(row.now.macs < row.dense.macs for row in rows)


@pytest.mark.thorough
def test_the_plan_can_be_applied_again_and_edited(hub: Hub, data: list[np.ndarray], compressed: Compression) -> None:
    plan = CompressionPlan.from_toml(compressed.plan.to_toml())
    again = apply_plan(hub, plan, data=data)
    x = data[0]
    np.testing.assert_allclose(outputs(again.hub, x), outputs(compressed.hub, x), rtol=1e-3, atol=1e-3)
    name = next(n for n, line in plan.layers.items() if line.method != "dense")
    more = replace(plan, layers={**plan.layers, name: replace(plan.layers[name], ranks=(10_000,))})
    full = apply_plan(hub, more)
    layer = full.hub.layer(name)
    assert layer.factorized is not None
    dense = hub.layer(name).kernel
    assert dense is not None
    np.testing.assert_allclose(layer.factorized.kernel(), dense, atol=1e-5 * np.abs(dense).max())


def test_folder_holds_the_same_network(tmp_path: Path, compressed: Compression, data: list[np.ndarray]) -> None:
    artifact.write(compressed, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "hub.onnx",
        "plan.toml",
        "report.json",
    ]
    hub = artifact.read_hub(tmp_path / "out")
    np.testing.assert_array_equal(outputs(hub, data[0]), outputs(compressed.hub, data[0]))
    assert artifact.read_plan(tmp_path / "out") == compressed.plan
    assert artifact.read_report(tmp_path / "out") == compressed.report
    with pytest.raises(UserError, match="--force"):
        artifact.write(compressed, tmp_path / "out")
    with pytest.raises(UserError, match="lacks"):
        artifact.read_hub(tmp_path)


def edited(plan: CompressionPlan, **changes: object) -> CompressionPlan:
    name = next(n for n, line in plan.layers.items() if line.method != "dense")
    return replace(plan, layers={name: replace(plan.layers[name], **changes)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "method 'magic' for layer features"),
        ({"shape": "f 2x2"}, "write it as"),
        ({"shape": "f 2x2, c 1x1, h 1x3, w 1x3"}, r"divide its outputs \(1, 2, 4, .*another model"),
        ({"ranks": (0,)}, "must be 1 of at least 1"),
        ({"ranks": (3, 3)}, "must be 1 of at least 1"),
        ({"ranks": ()}, "must be 1 of at least 1"),
        ({"method": "tucker", "shape": "f 64, c 64, h 3, w 3", "ranks": (8,)}, "must be 2 of at least 1"),
    ],
)
def test_wrong_plans_name_the_layer(hub: Hub, compressed: Compression, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        apply_plan(hub, edited(compressed.plan, **changes))


def test_the_plan_of_another_model_is_refused_with_the_layers_that_differ(hub: Hub) -> None:
    shape = str(KroneckerShape((32, 1), (1, 8), (1, 3), (3, 1)))
    names = [layer.name for layer in hub.layers() if layer.kernel_shape[2:] == (3, 3)]
    plan = CompressionPlan("other", {name: LayerPlan("kronecker", shape, (2,)) for name in names})
    with pytest.raises(UserError, match=rf"another model \(other\): kernels differ in {names[0]} .*{names[-1]}"):
        apply_plan(hub, plan)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratios": {}, "options": CompressionOptions(Energy(0.5)), "method": "cp"}, "or a ratio for cp"),
        ({"ratios": {"macs": 10_000.0}}, "cannot be reached; the best that this network can is"),
        ({"ratios": {"macs": 0.5}}, "makes no sense"),
        ({"ratios": {"macs": float("nan")}}, "makes no sense"),
        ({"ratios": {"macs": 2.0}, "method": "origami"}, "no method 'origami'"),
        ({"ratios": {"macs": 2.0}, "data": [np.zeros((4, 3, 32, 32), np.float32)]}, "have shape"),
    ],
)
def test_wrong_wishes_are_refused(hub: Hub, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        compress(hub, model="sixconv", **options)  # type: ignore[arg-type]
