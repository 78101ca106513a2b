"""Which version each version of a chain is compared with, and as what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekron.exporters.verify import Named, links
from edgekron.graph.identity import Identity

DENSE = Identity(values="w")
SMALL = Identity("structure", "", "fitted", "forms")
OTHER = Identity("other structure", "", "others", "other forms")
TRAINED = Identity("structure", "", "trained", "forms")
TUNED = Identity("structure", "", "fitted", "faster forms")
PRUNED = Identity("", "kept", "few", "")
#: kind, identity, precision of versions by a letter or two.
VERSIONS = {
    "t": ("torch", DENSE, "float32"),
    "ft": ("torch", SMALL, "float32"),
    "dh": ("hub", DENSE, "float32"),
    "h": ("hub", SMALL, "float32"),
    "do": ("onnx", None, "float32"),  # not written by us
    "o": ("onnx", SMALL, "float32"),
    "l": ("tflite", SMALL, "float32"),
    "o8": ("onnx", SMALL, "int8"),
    "l8": ("tflite", SMALL, "int8"),
    "l16": ("tflite", SMALL, "float16"),
    "qt": ("torch", OTHER, "float32"),
    "qh": ("hub", OTHER, "float32"),
    "trained": ("hub", TRAINED, "float32"),
    "to": ("onnx", TRAINED, "float32"),
    "tuned": ("hub", TUNED, "float32"),
    "uo": ("onnx", TUNED, "float32"),
    "both": ("hub", Identity("structure", "", "trained", "faster forms"), "float32"),
    "pruned": ("hub", PRUNED, "float32"),
    "po": ("onnx", PRUNED, "float32"),
}
D, C, Q = "decomposition", "conversion", "quantization"


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("t ft h o l l8", [("t", D), ("ft", C), ("h", C), ("o", C), ("l", Q)]),
        # Each quantized file belongs to the float file of its format.
        ("t ft h o l o8 l8 l16", [("t", D), ("ft", C), ("h", C), ("o", C), ("o", Q), ("l", Q), ("l", Q)]),
        # Nothing comes from a quantized file.
        ("h l l8 o", [("h", C), ("l", Q), ("l", C)]),
        ("do dh h o", [("do", C), ("dh", D), ("h", C)]),
        # Two compressions of one network.
        ("t ft h qt qh", [("t", D), ("ft", C), ("t", D), ("qt", C)]),
        # What is left out is told as one step.
        ("t o l8", [("t", f"{D} and {C}"), ("o", f"{C} and {Q}")]),
        ("t l8", [("t", f"{D} and {C} and {Q}")]),
        # Each change by its name, and files with the folder that they were written from.
        ("dh h trained to", [("dh", D), ("h", "training"), ("trained", C)]),
        ("dh h tuned uo o", [("dh", D), ("h", "tuning"), ("tuned", C), ("h", C)]),
        ("h both", [("h", "training and tuning")]),
        ("h trained both", [("h", "training"), ("trained", "tuning")]),
        ("dh pruned po", [("dh", "pruning"), ("pruned", C)]),
        ("do pruned h", [("do", f"pruning and {C}"), ("do", f"{D} and {C}")]),
        ("pruned h", [("pruned", f"{D} and pruning")]),
        ("h uo", [("h", f"tuning and {C}")]),
        # Backwards, and twice the same.
        ("h t", [("h", f"{D} and {C}")]),
        ("l8 l", [("l8", Q)]),
        ("o o", [("o", C)]),
    ],
)
def test_each_version_has_a_parent(chain: str, expected: list[tuple[str, str]]) -> None:
    letters = chain.split()
    versions = [
        Named(letter, SimpleNamespace(**dict(zip(("kind", "identity", "precision"), VERSIONS[letter], strict=True))))
        for letter in letters
    ]
    assert [(letters[link.parent], link.kind) for link in links(versions)] == expected
