"""The report of a compression: it says what was done, keeps its schema, comes back whole, and goes with its hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edgekron.compression import artifact
from edgekron.compression.compressor import Compression, compress
from edgekron.compression.report import CompressionReport
from edgekron.errors import UserError
from edgekron.graph.cost import cost
from tests.networks import SHAPE, hub

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/report.schema.json").read_text())
BATCHES = [np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)]


@pytest.fixture(scope="module")
def compressions() -> Mapping[str, Compression]:
    """By method; "cp" has a row with a degeneracy, pruning rows with channels and a repair."""
    ratios = {"macs": 1.5}
    return {
        method: compress(hub(), model="tiny", ratios=ratios, data=BATCHES, method=method)
        for method in ("kronecker", "cp", "absorb", "qsfm+low-rank")
    }


@pytest.mark.parametrize("method", ["kronecker", "cp", "absorb", "qsfm+low-rank"])
def test_reports_keep_their_schema_and_come_back(compressions: Mapping[str, Compression], method: str) -> None:
    made = compressions[method]
    data = json.loads(json.dumps(made.report.to_json(), allow_nan=False))
    jsonschema.validate(data, SCHEMA)
    assert CompressionReport.from_json(data) == made.report
    assert made.report.identity == made.hub.identity.digest


@pytest.mark.parametrize("method", ["kronecker", "absorb", "qsfm+low-rank"])
def test_totals_are_those_of_the_hub(compressions: Mapping[str, Compression], method: str) -> None:
    made = compressions[method]
    costs = [cost(layer) for layer in made.hub.layers()]
    assert made.report.macs.compressed == sum(one.macs for one in costs)
    assert made.report.parameters.compressed == sum(one.parameters for one in costs)
    assert made.report.macs.dense == sum(layer.dense_macs for layer in hub().layers())
    assert made.report.macs.ratio == made.report.macs.dense / made.report.macs.compressed >= 1.5


def test_a_trained_network_has_no_errors_of_the_one_before(compressions: Mapping[str, Compression]) -> None:
    made = compressions["kronecker"]
    trained = artifact.with_hub(made, made.hub, {"epochs": 1})
    assert any(row.error is not None for row in made.report.layers.values())
    assert all(row.error is None and not row.tried for row in trained.report.layers.values())
    assert trained.report.macs == made.report.macs
    assert trained.report.training == ({"epochs": 1},)
    jsonschema.validate(json.loads(json.dumps(trained.report.to_json())), SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("layers"),
        lambda data: data["layers"]["block"].pop("dense"),
        lambda data: data["layers"]["block"].update(dense={"macs": "many", "parameters": 1}),
        lambda data: data["layers"]["block"].update(colour="red"),
        lambda data: data["layers"].update(block=[1]),
        lambda data: data.update(layers=[]),
    ],
)
def test_a_damaged_report_is_refused(
    compressions: Mapping[str, Compression], damage: Callable[[dict[str, object]], object]
) -> None:
    data = json.loads(json.dumps(compressions["kronecker"].report.to_json()))
    damage(data)
    with pytest.raises(UserError, match=r"r\.json is not a report that 'edgekron compress' wrote"):
        CompressionReport.from_json(data, "r.json")


def test_the_report_of_another_network_is_refused(compressions: Mapping[str, Compression], tmp_path: Path) -> None:
    for name in ("kronecker", "cp"):
        artifact.write(compressions[name], tmp_path / name)
    assert artifact.read(tmp_path / "kronecker").report == compressions["kronecker"].report
    (tmp_path / "cp" / artifact.REPORT).replace(tmp_path / "kronecker" / artifact.REPORT)
    with pytest.raises(UserError, match=r"hub\.onnx is not the network that report\.json beside it is of"):
        artifact.read(tmp_path / "kronecker")
