"""Measurements on disk, so that a layer is measured once on a machine.

Each measurement is one JSON file in ``edgekron/tuning`` of the user's cache folder ($XDG_CACHE_HOME, or ~/.cache),
named by the hash of the measurement's key. The key is in the file too: the runtime and its version, processor, threads,
type, EdgeKron's version, the layer's geometry and surroundings, and the candidates. Deleting the folder is always safe.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekron.errors import UserError
from edgekron.files import write_file

log = logging.getLogger(__name__)

#: Counted up whenever measurements are made differently.
FORMAT = 1

Key = Mapping[str, object]
T = TypeVar("T")


def folder() -> Path:
    """The folder of all measurements."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    # The standard says that a relative path is to be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "edgekron" / "tuning"


def path_of(key: Key) -> Path:
    """The file of one measurement."""
    digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
    return folder() / f"{digest[:32]}.json"


def read(key: Key, parse: Callable[[Any], T]) -> T | None:
    """The measurement of ``key`` by ``parse``, which may raise ``KeyError``, ``TypeError`` or ``ValueError``.

    None if there is no file for the key, or a damaged one, which the next ``write`` replaces.
    """
    path = path_of(key)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if _canonical(data["key"]) != _canonical(key):
            return None
        return parse(data["result"])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        log.warning("%s is damaged (%s); it is measured again", path, error)
        return None


def write(key: Key, result: Mapping[str, object]) -> None:
    """Keeps a measurement, plain data; if the folder cannot be written, the measurement is lost with a warning."""
    text = json.dumps({"key": dict(key), "result": dict(result)}, indent=1)
    try:
        write_file(path_of(key), text + "\n", force=True)
    except UserError as error:
        log.warning("the measurement is not kept: %s", error)


def _canonical(key: Key) -> str:
    return json.dumps({"format": FORMAT, **key}, sort_keys=True)
