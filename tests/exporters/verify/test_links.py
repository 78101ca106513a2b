"""Which version each version of a chain is compared with, and as what."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekron.exporters.verify import Named, links

#: kind, plan, precision of versions by a letter or two.
VERSIONS = {
    "t": ("torch", None, "float32"),
    "ft": ("torch", "p", "float32"),
    "dh": ("hub", None, "float32"),
    "h": ("hub", "p", "float32"),
    "do": ("onnx", None, "float32"),
    "o": ("onnx", "p", "float32"),
    "l": ("tflite", "p", "float32"),
    "o8": ("onnx", "p", "int8"),
    "l8": ("tflite", "p", "int8"),
    "l16": ("tflite", "p", "float16"),
    "qt": ("torch", "q", "float32"),
    "qh": ("hub", "q", "float32"),
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
        # Backwards, and twice the same.
        ("h t", [("h", f"{D} and {C}")]),
        ("l8 l", [("l8", Q)]),
        ("o o", [("o", C)]),
    ],
)
def test_each_version_has_a_parent(chain: str, expected: list[tuple[str, str]]) -> None:
    letters = chain.split()
    versions = [
        Named(letter, SimpleNamespace(**dict(zip(("kind", "plan", "precision"), VERSIONS[letter], strict=True))))
        for letter in letters
    ]
    assert [(letters[link.parent], link.kind) for link in links(versions)] == expected
