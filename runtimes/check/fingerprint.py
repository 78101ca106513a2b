"""Which machine a measurement is from: the facts that decide a latency and do not change from day to day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import MachineFacts

#: A machine's identity: the facts that make it what it is, as they stand in files of JSON.
Identity = Mapping[str, object]

#: Facts of ``edgekron.runtimes.agent.environment.describe`` that make a machine what it is. The kernel, Python and the
#: cores that a process may use change under the same machine and are left out.
_IDENTITY = ("processor", "board", "machine", "virtual", "features", "cores", "system", "governor")
#: Two boots of one machine differ by what the kernel reserves.
_GRAIN = 2**28


def identity(facts: MachineFacts) -> dict[str, object]:
    """The facts that identify a machine, as plain data; memory is rounded to 256 MiB."""
    known = dict(facts)
    found = {name: known[name] for name in _IDENTITY if name in known}
    if "governor" in facts:
        found["governor"] = sorted(set(facts["governor"].values()))
    if "memory" in facts:
        found["memory"] = round(facts["memory"] / _GRAIN) * _GRAIN
    return found


def fingerprint(machine: Identity) -> str:
    """Twelve hexadecimal digits of an identity."""
    text = json.dumps(machine, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(machine: Identity, other: Identity) -> str:
    """The differences of two identities in words: "cores 2, not 4; processor X, not Y"."""
    names = sorted(set(machine) | set(other))
    return "; ".join(
        f"{name} {_short(machine.get(name))}, not {_short(other.get(name))}"
        for name in names
        if machine.get(name) != other.get(name)
    )


def _short(value: object) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
