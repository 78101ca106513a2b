"""Reasons are verb phrases behind "it ...", and are counted by their kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from onnx import helper

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.graph import load
from edgekron.graph.reasons import kinds_of

from .single import proto, random

VERBS = {"is", "has", "shares", "acts", "crops", "pads", "states"}


def test_every_reason_begins_with_a_verb() -> None:
    """Read from the source, so that a new reason is met here too."""
    text = Path("edgekron/graph/layers.py").read_text()
    body = text[text.index("def _dense_layer") :]
    found = re.findall(r'(?:return |reason = |None, )f?"([^"]+)"', body)
    reasons = [text for text in found if " " in text]
    assert len(reasons) >= 12
    assert {reason.split()[0] for reason in reasons} <= VERBS, reasons


def test_reasons_are_counted_by_kind() -> None:
    reasons = [
        "has float16 weights, not float32",
        "has float16 weights, not float32",
        "shares its weights with conv2",
        "shares its weights with conv1, conv3",
        "shares its weights with conv4",
        "is depthwise: one input channel for each filter leaves nothing to factorize",
        "is a 3-dimensional convolution; only those of images are factorized",
        "is a 3-dimensional convolution; only those of images are factorized",
        "can be factorized",
    ]
    assert kinds_of(reasons) == (
        "3 layers share their weights, 2 have float16 weights, 2 are 3-dimensional convolutions, 1 is depthwise, "
        "1 can be factorized"
    )
    assert kinds_of(reasons[5:6]) == "1 layer is depthwise"
    assert kinds_of([]) == ""


def saved(path: Path, nodes: list, constants: dict) -> Path:
    import onnx

    onnx.save(proto(nodes, constants), path)
    return path


def test_the_best_ratio_says_why(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "s"], ["b"]),
        helper.make_node("Conv", ["b", "s"], ["c"]),
        helper.make_node("Conv", ["c", "d"], ["y"], group=4),
    ]
    constants = {"w": random(4, 4, 3, 3), "s": random(4, 4, 1, 1), "d": random(4, 1, 3, 3)}
    hub = load(saved(tmp_path / "s.onnx", nodes, constants))
    said = r"the best that this network can is \d\.\d\d: 2 layers share their weights, 1 can be factorized, 1 is depth"
    with pytest.raises(UserError, match=said):
        compress(hub, model="s", ratios={"macs": 50.0})
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "s"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["y"], axes=[2, 3], keepdims=0),
    ]
    hub = load(saved(tmp_path / "p.onnx", nodes, {"w": random(16, 4, 3, 3), "s": random(8, 16, 1, 1)}))
    said = r"the best that this network can is \d.*: (1 layer can be pruned, 1 \w+|1 layer \w+ .*, 1 can be pruned)"
    with pytest.raises(UserError, match=said):
        compress(hub, model="p", ratios={"macs": 50.0}, method="l1")


def test_a_network_without_anything_to_factorize(tmp_path: Path) -> None:
    hub = load(saved(tmp_path / "n.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}))
    with pytest.raises(UserError, match=r"^n has nothing to factorize: no convolution or matrix product\.$"):
        compress(hub, model="n", ratios={"macs": 1.5})
    depthwise = [helper.make_node("Conv", ["x", "d"], ["y"], group=4)]
    hub = load(saved(tmp_path / "d.onnx", depthwise, {"d": random(4, 1, 3, 3)}))
    with pytest.raises(UserError, match=r"^d has nothing to factorize: 1 layer is depthwise\.$"):
        compress(hub, model="d", ratios={"parameters": 1.5})


def test_sizes_that_stay_unknown_are_no_zeros(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="known", pads=[1] * 4),
        helper.make_node("NonZero", ["a"], ["places"]),
        helper.make_node("Shape", ["places"], ["count"]),
        helper.make_node("Slice", ["count", "one", "two"], ["some"]),
        helper.make_node("Min", ["some", "most"], ["few"]),
        helper.make_node("Concat", ["zeros", "few"], ["pads"], axis=0),
        helper.make_node("Pad", ["a", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["b"], name="behind"),
        helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    import numpy as np

    constants = {"w": random(4, 4, 3, 3), "one": np.array([1]), "two": np.array([2]), "most": np.array([3]),
                 "zeros": np.zeros(7, np.int64)}  # fmt: skip
    hub = load(saved(tmp_path / "u.onnx", nodes, constants))
    known, behind = hub.layers()
    assert (known.macs_known, behind.macs_known) == (True, False)
    for method in ("low-rank", "l1"):
        with pytest.raises(UserError, match=r"the MACs of behind are not known, .* no ratio of MACs can be promised"):
            compress(hub, model="u", ratios={"macs": 1.2}, method=method)
