"""What a device may send: every answer is checked against a shape before any of it is used.

A shape is a type (``int``, ``float``, ``str``, ``bool``), a list of one shape (so many of
them), a dict (at least these keys, each of its shape; keys ending in ``?`` may be absent), or ``Null(shape)``. Numbers
are finite. Text is cut to a decent length and rid of control characters: it ends up on terminals and in reports.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from edgekron.runtimes.errors import RuntimeFailure

#: No line of an answer is longer: ten thousand samples in each of twenty rounds of five files are twenty megabytes.
LONGEST_LINE = 64 * 2**20
_LONGEST_TEXT = 2000
_DEEPEST = 20


@dataclass(frozen=True)
class Null:
    """A value of ``shape``, or null."""

    shape: Any


_FACTS: dict[str, Any] = {"cores?": Null(int), "memory?": int, "governor?": {}, "page_size?": int}
_TENSOR = {"name": str, "shape": [Null(int)], "dtype": str, "layout": str}
_RUNTIME = {"runtime": str, "version": str, "not_delegated?": [str]}
_MEMORY = {"file": int, **dict.fromkeys(("runtime", "loaded", "peak", "steady"), Null(int))}
_MEASURED = {
    "name": str,
    "runtime": _RUNTIME,
    "input": _TENSOR,
    "outputs": [_TENSOR],
    "cores": Null([int]),
    "cold": {"process": Null(int), "runtime": Null(int), "load": int, "first": int},
    "warm_up": int,
    "settled": bool,
    "rounds": [[int]],
    "paced": Null({"hertz": float, "nanoseconds": [int], "late": bool}),
    "memory": _MEMORY,
}

#: The answer to each command of ``edgekron.runtimes.agent`` and each request of ``edgekron.runtimes.requests``.
ANSWERS: dict[str, Any] = {
    "describe": {
        "facts": _FACTS,
        "state": {},
        "runtimes": {},
        "disk": {"folder": str, "free": int},
        "python": str,
        "protocol": int,
    },
    "held": {"bytes": int, "whole": bool, "path": str},
    "receive": {"path": str},
    "start": {"job": str},
    "measure": {"facts": _FACTS, "before": {}, "during": [{}], "after": {}, "files": [_MEASURED]},
    "prove": {
        "name": str,
        "limit": int,
        "means": str,
        "lived": bool,
        "stage": str,
        "reason": Null(str),
        "peak": Null(int),
        "memory": Null(_MEMORY),
    },
    "profile": {"nodes": [{"name": str, "operator": str, "seconds": float}]},
    "arena": {"litert": Null(int), "micro": Null(int), "micro_head": Null(int), "note": Null(str)},
    "step": {"done": int, "total": int, "text": str},
}


def parse(line: bytes, sender: str) -> dict[str, Any]:
    """One line of a device as an object, cleaned; ``RuntimeFailure`` for anything else."""
    if len(line) > LONGEST_LINE:
        raise RuntimeFailure(f"{sender} sent a line of {len(line)} bytes; it does not run this version's agent.")
    try:
        value = _clean(json.loads(line), 0)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RuntimeFailure(f"{sender} sent {line[:80]!r}, not an answer; something there prints at every login.")
    return value


def check(value: Any, what: str, sender: str) -> None:
    """Raises ``RuntimeFailure`` where an answer to ``what`` has another shape than the agent's."""
    _check(value, ANSWERS.get(what, {}), what, sender)


def _check(value: Any, shape: Any, where: str, sender: str) -> None:
    if isinstance(shape, Null):
        if value is not None:
            _check(value, shape.shape, where, sender)
        return
    if isinstance(shape, dict):
        _require(isinstance(value, dict), value, where, sender)
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value or name == key:
                _require(name in value, value, f"{where} without {name}", sender)
                _check(value[name], inner, f"{where}.{name}", sender)
    elif isinstance(shape, list):
        _require(isinstance(value, list), value, where, sender)
        for item in value:
            _check(item, shape[0], where, sender)
    elif shape is bool or shape is str:
        _require(isinstance(value, shape), value, where, sender)
    else:
        kinds = (int, float) if shape is float else int
        _require(isinstance(value, kinds) and not isinstance(value, bool), value, where, sender)


def _require(right: bool, value: Any, where: str, sender: str) -> None:
    if not right:
        raise RuntimeFailure(f"{sender} sent an answer that is none of the agent's ({where}: {str(value)[:60]!r}).")


def _clean(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else " " for letter in value[:_LONGEST_TEXT])
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key, depth + 1): _clean(item, depth + 1) for key, item in value.items()}
    return value
