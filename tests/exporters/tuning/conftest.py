"""Layers to tune, a cache of their own for every test, and races that are over at once."""

from __future__ import annotations

import pytest

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.exporters.tuning import layer, network, race
from edgekron.exporters.tuning.subject import Subject

KRONECKER = FactorNetwork("r1 f1 c1, r1 f2 c2 h1 w1", {"r1": 2, "f1": 4, "c1": 2, "f2": 4, "c2": 8, "h1": 3, "w1": 3})
SAME = Geometry(padding=((1, 1), (1, 1)))


def subject(factors: FactorNetwork = KRONECKER, geometry: Geometry = SAME, **options) -> Subject:
    size = options.pop("size", (9, 8))
    order = options.pop("order", tuple(range(len(factors.axes))))
    return Subject(options.pop("name", "conv"), options.pop("kind", "conv"), factors, geometry, size, order, **options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def short(monkeypatch):
    """Races of two rounds of three inferences: enough to see that everything runs."""
    monkeypatch.setattr(race, "TURN", 0.0)
    monkeypatch.setattr(layer, "HEATS", 1)
    monkeypatch.setattr(layer, "FINAL", 2)
    monkeypatch.setattr(network, "ROUNDS", 2)
    monkeypatch.setattr(network, "TURN", 0.0)
