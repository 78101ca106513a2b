"""The versions that arguments stand for: two are a pair, more are a chain with all that lies between them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekron.errors import UserError
from edgekron.exporters.verify import Opening, open_versions
from edgekron.graph import load

from .conftest import SHAPE, Family, Network

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")


def opened(family: Family, *texts: str) -> Opening:
    """``net`` is the module, ``dense`` its hub alone; everything else lies in the family's folder."""

    def read(text: str) -> SimpleNamespace:
        if text == "net":
            return SimpleNamespace(name=text, hub=family.dense, module=family.module)
        folder = text.endswith("small")
        return SimpleNamespace(name=text, hub=family.small if folder else family.dense, module=None)

    return open_versions([t if t in ("net", "dense") else str(family.folder / t) for t in texts], read)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("net small", "net (hub), small (hub)"),
        ("net dense.onnx", "net (hub), dense.onnx"),
        ("dense.onnx small", "dense.onnx, small (hub)"),
        ("small small", "small (hub), small (hub)"),
        ("net small out.onnx", "net (torch), small (torch), small (hub), out.onnx"),
        ("net dense.onnx small", "net (torch), net (hub), dense.onnx, small (torch), small (hub)"),
        ("dense.onnx small out.onnx", "dense.onnx, dense.onnx (hub), small (hub), out.onnx"),
        ("dense small out.tflite", "dense (hub), small (hub), out.tflite"),
        ("out.onnx out.tflite int8.tflite", "out.onnx, out.tflite, int8.tflite"),
    ],
)
def test_arguments_stand_for_versions(family: Family, texts: str, expected: str) -> None:
    opening = opened(family, *texts.split())
    titles = [entry.title.removeprefix(f"{family.folder}/") for entry in opening.versions]
    assert ", ".join(titles) == expected
    assert opening.notes == []


def test_values_behind_a_fused_activation_have_a_title(family: Family) -> None:
    names = opened(family, "net", "small").names
    assert set(names.layers.values()) == {"first", "second", "last"}
    assert {"first", "first, Relu", "second", "last"} <= set(names.titles.values())
    assert set(names.layers) <= names.values
    # Files alone have the names that they have; a dense one knows its layers.
    alone = opened(family, "dense.onnx", "int8.onnx").names
    assert set(alone.layers.values()) == {"first", "second", "last"}
    assert alone.titles == {}
    assert opened(family, "out.onnx", "int8.onnx").names.layers == {}


def test_a_folder_of_another_network_is_refused(family: Family) -> None:
    other = load(Network().eval().first, input_shape=SHAPE)

    def read(text: str) -> SimpleNamespace:
        return SimpleNamespace(name=text, hub=other if text == "other" else family.small, module=None)

    small = str(family.folder / "small")
    with pytest.raises(UserError, match="has other layers than the reference"):
        open_versions(["other", small, str(family.folder / "out.onnx")], read)
