"""What a network is, told from its hub: the same through files and folders, another by each kind of change alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgekron.algebra.lowering import default_forms
from edgekron.compression import artifact
from edgekron.compression.compressor import Compression, compress
from edgekron.graph import Hub, load
from edgekron.graph.identity import Identity, changes
from edgekron.modules.graph_module import GraphModule
from edgekron.pruning import remove
from tests.networks import SHAPE, hub, tiny


@pytest.fixture(scope="module")
def dense() -> Hub:
    return hub()


@pytest.fixture(scope="module")
def compression(dense: Hub) -> Compression:
    return compress(dense, model="tiny", ratios={"macs": 1.5})


@pytest.fixture(scope="module")
def small(compression: Compression) -> Hub:
    return compression.hub


def decomposed(small: Hub) -> Hub:
    return compress(small.dense(), model="tiny", ratios={"macs": 1.5}, method="low-rank").hub


def pruned(small: Hub) -> Hub:
    return remove(small, {"down": [1, 5]})


def trained(small: Hub) -> Hub:
    module = GraphModule(small)
    for parameter in module.parameters():
        parameter.data.mul_(1.01)
    return module.to_hub()


def tuned(small: Hub) -> Hub:
    """One layer contracted in another order."""
    result = small.copy()
    layer = next(layer for layer in small.layers() if layer.factorized and len(layer.factorized.order) > 1)
    result.factorize(layer.name, replace(layer.factorized, order=layer.factorized.order[::-1], forms={}))
    return result


CHANGES = [
    ("decomposition", decomposed),
    ("pruning", pruned),
    ("training", trained),
    ("tuning", tuned),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_each_change_is_told_by_its_name(small: Hub, kind: str, change: Callable[[Hub], Hub]) -> None:
    other = change(small)
    assert changes(small.identity, other.identity) == changes(other.identity, small.identity) == (kind,)
    assert small.identity.digest != other.identity.digest


def test_from_the_original_network(dense: Hub, small: Hub) -> None:
    assert dense.identity.original
    assert not small.identity.original
    assert changes(dense.identity, small.identity) == ("decomposition",)
    assert changes(dense.identity, remove(dense, {"down": [0]}).identity) == ("pruning",)
    # A file of another tool says nothing of itself.
    assert changes(None, dense.identity) == ()
    assert changes(None, small.identity) == ("decomposition",)


def test_as_many_channels_are_not_the_same_channels(dense: Hub) -> None:
    one, two = (remove(dense, {"down": [place]}).identity for place in (0, 1))
    assert changes(one, two) == ("pruning",)
    assert one == remove(hub(), {"down": [0]}).identity


def test_the_same_network_through_memory_files_and_a_folder(
    compression: Compression, small: Hub, tmp_path: Path
) -> None:
    small.save(tmp_path / "hub.onnx")
    artifact.write(compression, tmp_path / "folder")
    found = [small.copy(), Hub.open(tmp_path / "hub.onnx"), artifact.read_hub(tmp_path / "folder")]
    assert {one.identity for one in found} == {small.identity}
    assert load(tiny(), input_shape=SHAPE).identity == load(tiny(), input_shape=SHAPE).identity


def test_forms_that_are_said_are_the_defaults_that_are_not(small: Hub) -> None:
    said, unsaid = small.copy(), small.copy()
    for layer in small.layers():
        if layer.factorized is not None:
            stages = layer.factorized.network.stages(layer.factorized.order, layer.geometry)
            forms = {target: default_forms(stages, target) for target in ("onnx", "tflite")}
            said.factorize(layer.name, replace(layer.factorized, forms=forms))
            unsaid.factorize(layer.name, replace(layer.factorized, forms={}))
    assert said.identity == unsaid.identity


def test_one_changed_value_is_another_network(dense: Hub) -> None:
    other = dense.copy()
    node = next(node for node in other.model.graph if node.op_type == "Conv")
    array = node.inputs[1].const_value.numpy().copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(9))
    node.inputs[1].const_value = ir.tensor(array)
    assert changes(dense.identity, other.identity) == ("training",)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '"x"', '{"structure": 1}', '{"other": "x"}'])
def test_what_is_no_identity_is_none(text: str | None) -> None:
    assert Identity.from_text(text) is None


def test_identities_are_written_and_read(small: Hub) -> None:
    assert Identity.from_text(small.identity.to_text()) == small.identity
    assert Identity.from_text(Identity().to_text()) == Identity()
