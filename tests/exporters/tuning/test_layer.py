"""Every way of every kind of layer runs in its surroundings, and gives what the dense layer gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.errors import UserError
from edgekron.exporters.tuning import layer as module
from edgekron.exporters.tuning.candidates import candidates
from edgekron.exporters.tuning.layer import finalists, measure_layer
from edgekron.exporters.tuning.surroundings import LAYER, one_layer

from .conftest import KRONECKER, SAME, subject
from .test_candidates import CP, LOW_RANK, TRAIN

LINEAR = FactorNetwork("r1 f1 c1, r1 f2 c2", {"r1": 2, "f1": 4, "c1": 2, "f2": 4, "c2": 8})
GROUPED = FactorNetwork("g1 r1 f1, g1 r1 c1 h1 w1", {"g1": 2, "r1": 2, "f1": 8, "c1": 8, "h1": 3, "w1": 3})
LAYERS = {
    "kronecker": subject(activation="Relu"),
    "added, clipped": subject(added=True, activation="Clip"),
    "first": subject(first=True, bias=False),
    "strided": subject(geometry=Geometry((2, 2), padding=((1, 1), (0, 1)))),
    "dilated": subject(geometry=Geometry(dilation=(2, 1), padding=((2, 2), (1, 1))), activation="HardSwish"),
    "transposed": subject(geometry=Geometry(padding=((1, 2), (1, 2)), upsample=(2, 2))),
    "low rank": subject(LOW_RANK),
    "cp": subject(CP),
    "train": subject(TRAIN),
    "grouped": subject(GROUPED),
    "linear": subject(LINEAR, Geometry(), kind="linear", size=(1, 1), activation="Relu"),
}


@pytest.mark.parametrize("target", ["onnx", "tflite"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("short")
def test_every_way_is_measured_and_equals_the_dense_layer(name, target):
    one = LAYERS[name]
    ways = candidates(one, target)
    result = measure_layer(one, target, threads=1)
    assert [trial.candidate for trial in result.trials] == ways
    assert result.dense_seconds > 0
    assert all(trial.seconds > 0 for trial in result.trials)
    assert 1 <= len(result.finalists) <= len(ways)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_stands_in_its_surroundings_as_it_is(name):
    one = LAYERS[name]
    hub = one_layer(one)
    found = hub.layer(LAYER)
    assert (found.geometry, found.groups, found.input_size) == (one.geometry, one.network.total("g"), one.size)
    assert found.kernel_shape == one.network.kernel_shape
    assert (found.bias is not None) == one.bias
    assert found.kernel.std() == pytest.approx(np.prod(one.network.kernel_shape[1:]) ** -0.5, rel=0.5)
    assert (hub.input_name == found.input) == (one.first or one.kind == "linear")


def test_a_wrong_output_stops_the_tuning(monkeypatch):
    monkeypatch.setattr(module.Race, "outputs", lambda race: [np.ones(4), *[np.zeros(4)] * (len(race.rounds) - 1)])
    with pytest.raises(UserError, match="layer conv in the forms .* differs by 1 from the dense layer"):
        measure_layer(subject(), "onnx", threads=1)


@pytest.mark.parametrize(
    ("heats", "expected"),
    [
        ([((0, 1), 1.0)], [0]),
        ([((0, 1), 1.0), ((0, 1), 3.0), ((0, 1), 2.0), ((0, 1), 2.5)], [1, 3, 2]),
        # The other order is slower than three of the first, and still near enough.
        ([((0, 1), 3.0), ((0, 1), 2.9), ((0, 1), 2.8), ((1, 0), 2.41), ((1, 0), 2.405)], [0, 1, 2, 3]),
        ([((0, 1), 3.0), ((0, 1), 2.9), ((0, 1), 2.8), ((1, 0), 2.3)], [0, 1, 2]),
    ],
)
def test_finalists(heats, expected):
    assert finalists(heats) == expected


def test_a_layer_is_the_same_whatever_its_name():
    assert subject(name="a").key() == subject(name="b", forms={"onnx": ("mix", "mix")}).key()
    assert subject().key() != subject(size=(10, 8)).key()
    assert subject(KRONECKER, SAME, added=True).key() != subject().key()
