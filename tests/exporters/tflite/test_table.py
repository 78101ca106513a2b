"""The table of operators in the documentation."""

from __future__ import annotations

from pathlib import Path

from edgekron.exporters.tflite.registry import TRANSLATORS
from edgekron.exporters.tflite.table import table

DOCUMENT = Path(__file__).parents[3] / "docs" / "operators.md"


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == table()


def test_rows_say_what_is_refused() -> None:
    rows = dict(line.strip("| ").split(" | ", 1) for line in table().splitlines() if line.startswith("| "))
    assert set(TRANSLATORS) <= set(rows)
    # Its own sentence, one of a function it calls, and one of what is to be constant.
    assert "it crops as it resizes" in rows["Resize"]
    assert "a …-D pool is not supported" in rows["MaxPool"]
    assert "not constant: weight, bias" in rows["Conv"]
    assert rows["Relu"].endswith("| -")
