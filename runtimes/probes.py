"""Three more questions about one file on a device: whether it runs in so much memory, its arena, its nodes' times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .agent.arena import Arena
from .agent.errors import RuntimeFailure
from .agent.memory import Memory
from .agent.profile import NodeTime
from .measure import LIMIT, PATIENCE, opened, sent

if TYPE_CHECKING:
    from .agent.messages import ArenaAnswer, Message, ProfileAnswer, ProveAnswer
    from .devices import Device

#: Inferences under the limit of memory: what a runtime allocates late, it has allocated by then.
_RUNS = 10

#: No process can be smaller: an interpreter that does nothing needs more.
_LEAST_LIMIT = 2**20


@dataclass(frozen=True)
class Proof:
    """How a file fared under a hard limit of memory, in bytes.

    ``means`` is "cgroup" (memory in RAM of the whole process) or "rlimit" (private memory asked for); ``stage`` is how
    far it came: "start", "load", "run" or "done". ``peak`` is what the group counted, None without one.
    """

    file: str
    limit: int
    means: str
    lived: bool
    stage: str
    reason: str | None
    peak: int | None
    memory: Memory | None

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return asdict(self)


def prove_memory(
    file: str | Path, limit: int, *, threads: int = 1, seed: int = 0, device: Device | None = None
) -> Proof:
    """Loads a file, and runs ten inferences, in a process of its own that the kernel keeps under ``limit`` bytes.

    The limit holds Python and the runtime too. Raises ``RuntimeFailure`` for a device that cannot do it, and for a file
    that does not run without the limit either; a process that dies under it is an answer.
    """
    if limit < _LEAST_LIMIT:
        raise RuntimeFailure(f"a limit of {limit} bytes is less than any process needs; give at least 1 MiB.")
    with opened(device) as on:
        request = _request("prove", threads, seed, file=sent(on, file), limit=limit, runs=_RUNS)
        answer = cast("ProveAnswer", on.run_agent(request))
    numbers = answer["memory"]
    return Proof(
        file=str(file),
        limit=limit,
        means=answer["means"],
        lived=answer["lived"],
        stage=answer["stage"],
        reason=answer["reason"],
        peak=answer["peak"],
        memory=Memory.read(numbers) if numbers else None,
    )


def tensor_arena(file: str | Path, *, device: Device | None = None) -> Arena:
    """The tensor arenas of a ``.tflite`` file; ``RuntimeFailure`` for another file, or one that cannot be opened."""
    if Path(file).suffix.lower() != ".tflite":
        raise RuntimeFailure(f"{file} has no tensor arena; only .tflite files have.")
    with opened(device) as on:
        answer = cast("ArenaAnswer", on.run_agent(_request("arena", 1, 0, file=sent(on, file))))
    return Arena(answer["litert"], answer["micro"], answer["micro_head"], answer["note"])


def node_times(
    file: str | Path, *, threads: int = 1, runs: int = 50, pin: bool = True, seed: int = 0, device: Device | None = None
) -> list[NodeTime]:
    """The time of each node of an ``.onnx`` file on a device: see ``edgekron.runtimes.agent.profile``."""
    with opened(device) as on:
        request = _request("profile", threads, seed, file=sent(on, file), runs=runs, pin=pin)
        answer = cast("ProfileAnswer", on.run_agent(request))
    return [NodeTime(node["name"], node["operator"], node["seconds"]) for node in answer["nodes"]]


def _request(do: str, threads: int, seed: int, **fields: object) -> Message:
    return {"do": do, "threads": threads, "seed": seed, "limit_s": LIMIT, "patience": PATIENCE, **fields}
