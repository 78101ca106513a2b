"""A training state on disk: one safetensors file, replaced whole, and nothing pickled.

Tensors are entered under "KIND.name": "model", "average", "best" for the weights, "momentum" for the optimiser,
"random" for the generators. The rest is JSON in the header: the record of the run, and as "identity" the facts that a
run must share with the state to take it up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.files import write_file

STATE, LOG = "state.safetensors", "log.jsonl"


@dataclass(frozen=True)
class State:
    """Tensors by kind and name, and facts of plain data."""

    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(folder: Path, state: State) -> None:
    """Writes the state; the state before stays until the new one is whole. Raises ``UserError``."""
    flat = {
        # Copies, because a tensor that two names share cannot be written twice.
        f"{kind}.{name}": tensor.detach().cpu().contiguous().clone()
        for kind, tensors in state.tensors.items()
        for name, tensor in tensors.items()
    }
    write_file(folder / STATE, safetensors.torch.save(flat, {"facts": json.dumps(state.facts)}), force=True)


def load(folder: Path, identity: Mapping[str, object], device: torch.device) -> State | None:
    """The state in ``folder``, None where there is none.

    Raises ``UserError`` for a state that cannot be read, or whose identity is not ``identity``.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt", device="cpu") as file:
            facts, keys = json.loads(file.metadata()["facts"]), file.keys()
            flat = {key: file.get_tensor(key) for key in keys}
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"the training state {path} cannot be read ({error}); remove {folder} to begin anew.") from None
    wanted = json.loads(json.dumps(identity))
    differing = sorted(key for key in {*wanted, *facts["identity"]} if wanted.get(key) != facts["identity"].get(key))
    if differing:
        raise UserError(
            f"{folder} holds the state of another training: {', '.join(differing)} differ; repeat the command that "
            "began it, or remove the folder to begin anew."
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        kind, _, name = key.partition(".")
        tensors.setdefault(kind, {})[name] = tensor if kind == "random" else tensor.to(device)
    return State(tensors, facts)


class JsonLines:
    """A log that any plotting tool reads: one JSON object a line."""

    def __init__(self, path: Path | None, step: int) -> None:
        """Continues ``path`` after ``step``: later lines, of a run that was killed, are dropped. None keeps no log."""
        self._path = path
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() and step else []
        kept = [line for line in lines if _step(line) <= step]
        write_file(path, "".join(f"{line}\n" for line in kept), force=True)

    def add(self, **entry: object) -> None:
        """One line, on disk when this returns."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        # The last line of a run that was killed may be cut.
        return float("inf")
