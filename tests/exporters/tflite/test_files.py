"""What is in a file beside its operators: layout, names, signature, metadata, size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from edgekron.compression import artifact
from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.read import Contents, read
from edgekron.graph import Hub, load
from edgekron.graph.identity import Identity
from edgekron.models.sixconv import SixConv


@pytest.fixture(scope="module")
def hub() -> Hub:
    torch.manual_seed(0)
    return load(SixConv().eval(), input_shape=(3, 20, 24))


@pytest.fixture(scope="module")
def folder(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compressed") / "out"
    artifact.write(compress(hub, model="sixconv", ratios={"macs": 2.0}), path)
    return path


def metadata(contents: Contents) -> dict[str, str]:
    buffers = contents.model.buffers
    return {m.name.decode(): bytes(buffers[m.buffer].data).decode() for m in contents.model.metadata}


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=data).get_signature_runner("serving_default")
    ((name, _),) = runner.get_input_details().items()
    (y,) = runner(**{name: x}).values()
    return y


def test_layout_is_the_users_choice(hub: Hub) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 20, 24)).astype(np.float32)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    nhwc, nchw = (export_tflite(hub, layout=layout) for layout in ("nhwc", "nchw"))
    np.testing.assert_allclose(run(nchw, x), run(nhwc, images), rtol=1e-5)
    assert (read(nchw).histogram - read(nhwc).histogram).keys() == {"TRANSPOSE"}


def test_an_unknown_layout_is_refused(hub: Hub) -> None:
    with pytest.raises(UserError, match="layout 'chwn' is none of nhwc, nchw"):
        export_tflite(hub, layout="chwn")


def test_the_identity_of_a_compressed_network_is_in_its_files(folder: Path) -> None:
    hub = artifact.read_hub(folder)
    said = metadata(read(export_tflite(hub)))
    assert said.keys() == {"edgekron_version", "edgekron_identity"}
    assert Identity.from_text(said["edgekron_identity"]) == hub.identity
    props = {p.key: p.value for p in export_onnx(hub).metadata_props}
    assert Identity.from_text(props["edgekron.identity"]) == hub.identity


def test_files_are_the_same_twice_and_little_larger_than_their_weights(hub: Hub, folder: Path) -> None:
    for network in (hub, artifact.read_hub(folder)):
        data = export_tflite(network)
        assert export_tflite(network) == data
        contents = read(data)
        assert contents.problems() == []
        assert len(data) <= 1.05 * contents.constant_bytes + 30_000
        assert metadata(contents).keys() >= {"edgekron_version"}


def test_constants_are_named_by_their_layers(hub: Hub, folder: Path) -> None:
    for network in (hub, artifact.read_hub(folder)):
        contents = read(export_tflite(network))
        names = [t.name.decode() for t in contents.graph.tensors if contents.model.buffers[t.buffer].data is not None]
        for layer in network.layers():
            assert any(name.startswith(layer.name) for name in names), layer.name
