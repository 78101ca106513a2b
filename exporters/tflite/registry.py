"""The table of translators: one for each ONNX operator, entered by a decorator.

A translator is a function that takes a ``Call``, writes operators into the call's program and declares the results. A
node that cannot be translated exactly is refused (``Call.refuse``); no file is written before every node is translated.
"""

from __future__ import annotations

from collections.abc import Callable

from .translation import Call

Translator = Callable[[Call], None]

TRANSLATORS: dict[str, Translator] = {}


def translates(*operators: str) -> Callable[[Translator], Translator]:
    """Enters a function as the translator of ONNX operators of the default domain."""

    def enter(function: Translator) -> Translator:
        for operator in operators:
            if operator in TRANSLATORS:
                raise AssertionError(f"{operator} has two translators")
            TRANSLATORS[operator] = function
        return function

    return enter
