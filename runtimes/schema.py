"""What a device may send: every answer is checked against a shape before any of it is used.

A shape is a type (``int``, ``float``, ``str``, ``bool``), a list of one shape (so many of them), a tuple of strings
(one of these), a dict (at least these keys, each of its shape; keys ending in ``?`` may be absent), ``Each(shape)`` or
``Null(shape)``. Numbers are finite and fit into 64 bits. Text is cut to a decent length and rid of control characters:
it ends up on terminals and in reports.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from edgekron.runtimes.agent.errors import RuntimeFailure

#: No line of an answer is longer: ten thousand samples in each of twenty rounds of five files are twenty megabytes.
LONGEST_LINE = 64 * 2**20
_LONGEST_TEXT = 2000
_DEEPEST = 20
_LARGEST = 2**63


@dataclass(frozen=True)
class Null:
    """A value of ``shape``, or null."""

    shape: Any


@dataclass(frozen=True)
class Each:
    """An object with any keys, whose values are all of ``shape``."""

    shape: Any


#: What ``environment.describe`` and ``environment.state`` tell.
_FACTS: dict[str, Any] = {
    **dict.fromkeys(("cores?", "memory?", "swap?", "page_size?"), int),
    **dict.fromkeys(("processor?", "board?", "machine?", "clock?", "system?", "kernel?", "python?"), str),
    "virtual?": bool,
    "features?": [str],
    "allowed_cores?": [int],
    "governor?": Each(str),
}
_COUNTERS = ("available", "throttled", "core_throttles", "quota_throttles", "swapped_in", "swapped_out", "stolen_ticks")
_STATE: dict[str, Any] = {
    **{f"{name}?": int for name in _COUNTERS},
    "load?": [float],
    "frequency?": Each(int),
    "temperature?": Each(float),
}
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

#: How far a process under a limit of memory can come, see ``edgekron.runtimes.agent.proof``.
STAGES = ("start", "load", "run", "done")

#: The answer to each command of ``edgekron.runtimes.agent.main`` and each request of
#: ``edgekron.runtimes.agent.requests``.
ANSWERS: dict[str, Any] = {
    "describe": {
        "facts": _FACTS,
        "state": _STATE,
        "runtimes": Each(Null(str)),
        "disk": {"folder": str, "free": int},
        "python": str,
        "protocol": int,
    },
    "held": {"bytes": int, "whole": bool, "path": str},
    "receive": {"path": str},
    "start": {"job": str},
    "measure": {"facts": _FACTS, "before": _STATE, "during": [_STATE], "after": _STATE, "files": [_MEASURED]},
    "prove": {
        "means": str,
        "lived": bool,
        "stage": STAGES,
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


def plain(text: str, longest: int = _LONGEST_TEXT) -> str:
    """The beginning of a text from elsewhere, fit for a terminal: what cannot be printed is a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:longest])


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
    elif isinstance(shape, list | Each):
        _require(isinstance(value, list if isinstance(shape, list) else dict), value, where, sender)
        inner, items = (shape[0], value) if isinstance(shape, list) else (shape.shape, value.values())
        for item in items:
            _check(item, inner, where, sender)
    elif isinstance(shape, tuple):
        _require(value in shape, value, where, sender)
    elif shape is bool or shape is str:
        _require(isinstance(value, shape), value, where, sender)
    else:
        number = isinstance(value, (int, float) if shape is float else int) and not isinstance(value, bool)
        _require(number and abs(value) < _LARGEST, value, where, sender)


def _require(right: bool, value: Any, where: str, sender: str) -> None:
    if not right:
        raise RuntimeFailure(f"{sender} sent an answer that is none of the agent's ({where}: {str(value)[:60]!r}).")


def _clean(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key, depth + 1): _clean(item, depth + 1) for key, item in value.items()}
    return value
