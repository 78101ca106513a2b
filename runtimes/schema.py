"""The answers of devices: each is checked against its type before any part of it is used.

The types are those of ``edgekron.runtimes.agent.messages``: a ``TypedDict`` (at least its required keys, each of its
type), ``list[X]``, ``dict[str, X]``, ``X | None``, ``Literal`` strings, ``int``, ``float``, ``str`` and ``bool``.
Numbers are finite and fit into 64 bits. Text is cut to a decent length and rid of control characters: it ends up on
terminals and in reports.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin, get_type_hints, is_typeddict

from .agent import messages
from .agent.errors import RuntimeFailure
from .agent.messages import Message

#: No line of an answer is longer: ten thousand samples in each of twenty rounds of five files are twenty megabytes.
LONGEST_LINE = 64 * 2**20
_LONGEST_TEXT = 2000
_DEEPEST = 20
_LARGEST = 2**63

#: The type of the answer to each command of the agent (``edgekron.runtimes.agent.main``) and to each request
#: (``edgekron.runtimes.agent.requests``). Other commands answer nothing but that they are done.
ANSWERS: dict[str, type] = {
    "describe": messages.DescribeAnswer,
    "held": messages.HeldAnswer,
    "receive": messages.ReceiveAnswer,
    "start": messages.StartAnswer,
    "measure": messages.MeasureAnswer,
    "prove": messages.ProveAnswer,
    "profile": messages.ProfileAnswer,
    "arena": messages.ArenaAnswer,
    "step": messages.WorkStep,
}


def parse(line: bytes, sender: str) -> Message:
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


def check(value: object, what: str, sender: str) -> None:
    """Raises ``RuntimeFailure`` for an answer to the command or request ``what`` that is not of its type."""
    if what in ANSWERS:
        _check(value, ANSWERS[what], what, sender)


def _check(value: object, kind: object, where: str, sender: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        # The only unions here are those of one type and None.
        if value is not None:
            _check(value, next(one for one in arguments if one is not NoneType), where, sender)
    elif is_typeddict(kind) and isinstance(value, dict):
        _check_keys(value, *_keys(kind), where, sender)
    elif origin is list and isinstance(value, list):
        for item in value:
            _check(item, arguments[0], where, sender)
    elif origin is dict and isinstance(value, dict):
        for item in value.values():
            _check(item, arguments[1], where, sender)
    elif not (value in arguments if origin is Literal else _plain_value(value, kind)):
        raise _wrong(value, where, sender)


def _check_keys(
    value: dict[str, object], types: dict[str, object], required: frozenset[str], where: str, sender: str
) -> None:
    for name, inner in types.items():
        if name in value:
            _check(value[name], inner, f"{where}.{name}", sender)
        elif name in required:
            raise _wrong(value, f"{where} without {name}", sender)


@lru_cache
def _keys(kind: type) -> tuple[dict[str, object], frozenset[str]]:
    """The types of a ``TypedDict`` by key, and the keys that must be there."""
    return get_type_hints(kind), vars(kind)["__required_keys__"]


def _plain_value(value: object, kind: object) -> bool:
    """Whether a value is a text, a truth or a number of this type."""
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if kind is float and isinstance(value, float):
        return abs(value) < _LARGEST
    return kind in (int, float) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _wrong(value: object, where: str, sender: str) -> RuntimeFailure:
    return RuntimeFailure(f"{sender} sent an answer that is none of the agent's ({where}: {str(value)[:60]!r}).")


def _clean(value: object, depth: int) -> object:
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
