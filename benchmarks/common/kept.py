"""Finished work, which a script finds again when the same command is given once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekron.files import write_file
from edgekron.graph import Hub

from .record import Row
from .variants import hub_top1


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """The plain data in ``path`` (.json), which ``make`` makes where there is none yet."""
    if not path.exists():
        write_file(path, json.dumps(make(), indent=1) + "\n")
    return json.loads(path.read_text())


def kept_hub(path: Path, make: Callable[[], Hub]) -> Hub:
    """The network in ``path`` (.onnx), which ``make`` makes where there is none yet."""
    if not path.exists():
        make().save(path)
    return Hub.open(path)


def kept_network(folder: Path, name: str, make: Callable[[], tuple[Hub, Row]]) -> tuple[Hub, Row]:
    """The network ``name`` in ``folder`` and its facts; ``make`` makes both unless both are there."""
    file, facts = folder / f"{name}.onnx", folder / f"{name}.json"
    if not (file.exists() and facts.exists()):
        hub, found = make()
        hub.save(file, force=True)
        write_file(facts, json.dumps(found, indent=1) + "\n", force=True)
    return Hub.open(file), json.loads(facts.read_text())


def kept_top1(path: Path, hub: Hub, images: int) -> float:
    """Top-1 in percent of a hub's ONNX file on that many test images, which ``path`` (.json) keeps."""
    return float(kept(path, lambda: {"top1": hub_top1(hub, images)[0]})["top1"])
