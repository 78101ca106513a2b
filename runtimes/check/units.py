"""Quantities with units, as a budget file writes them and a table shows them.

==========  ===========================  ========================
quantity    units                        example
==========  ===========================  ========================
seconds     s, ms, us (or µs), ns        "2.5 ms"
bytes       B, kB, MB, GB, KiB, MiB, GiB  "600 kB"
fraction    %                            "93.5 %"
ratio       none, x, %                   0.8, "0.8 x" or "80 %"
count       none, k, M, G                20 or "12 M"
==========  ===========================  ========================

A time, a size or a fraction without its unit is refused: nobody should have to guess.
"""

from __future__ import annotations

import re
from decimal import Decimal

from edgekron.runtimes.agent.errors import RuntimeFailure

#: Exact, so that a bound of 94 % is the very number that 94 of 100 gives.
_UNITS = {
    quantity: {unit: Decimal(size) for unit, size in units.items()}
    for quantity, units in {
        "seconds": {"s": "1", "ms": "1e-3", "us": "1e-6", "µs": "1e-6", "\u03bcs": "1e-6", "ns": "1e-9"},
        "bytes": {
            "B": "1",
            "kB": "1e3",
            "MB": "1e6",
            "GB": "1e9",
            "KiB": str(2**10),
            "MiB": str(2**20),
            "GiB": str(2**30),
        },
        "fraction": {"%": "0.01"},
        "ratio": {"": "1", "x": "1", "%": "0.01"},
        "count": {"": "1", "k": "1e3", "M": "1e6", "G": "1e9"},
    }.items()
}
_EXAMPLES = {"seconds": "2.5 ms", "bytes": "600 kB", "fraction": "93.5 %", "ratio": "0.8", "count": "20"}
_SHOWN = {"seconds": ("s", "ms", "us", "ns"), "bytes": ("GB", "MB", "kB", "B")}
_NUMBER = re.compile(r"\s*([\d_]*\.?\d+(?:[eE][+-]?\d+)?)\s*(.*?)\s*")


def parse(value: object, quantity: str, where: str) -> float:
    """The number in seconds, bytes, or 1; ``where`` names the file and the key in the sentence of a refusal."""
    units = _UNITS[quantity]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RuntimeFailure(f"{where} must be {_about(quantity)}, not {value!r}.")
    match = _NUMBER.fullmatch(str(value))
    if match is None:
        raise RuntimeFailure(f"{where} = {value!r} is no number; write {_about(quantity)}.")
    number, unit = match.groups()
    if unit not in units:
        what = f"has no unit {unit!r}" if unit else "has no unit"
        known = ", ".join(dict.fromkeys(name for name in units if name and name.isascii()))
        raise RuntimeFailure(f"{where} = {value!r} {what}; use {known}, for example {_EXAMPLES[quantity]!r}.")
    return float(Decimal(number) * units[unit])


def show(value: float, quantity: str) -> str:
    """Four significant digits in the unit that suits the size."""
    for unit in _SHOWN.get(quantity, ()):
        size = float(_UNITS[quantity][unit])
        if value >= size or unit == _SHOWN[quantity][-1]:
            return f"{_digits(value / size)} {unit}"
    if quantity == "fraction":
        return f"{100 * value:.2f} %"
    if quantity == "count":
        return f"{value:,.0f}"
    return f"{value:.3f}"


def _about(quantity: str) -> str:
    return f"a number with its unit, such as {_EXAMPLES[quantity]!r}"


def _digits(number: float) -> str:
    return f"{number:.4g}" if number < 1e4 else f"{number:.0f}"
