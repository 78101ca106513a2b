"""Latency and memory of model files on a device, measured so that two files can be compared.

``edgekron.runtimes.agent.rounds`` says how: it runs on the device. One inference is one array in, arrays out, the
runtime's own copies included. The warm inferences are the steady state of a busy application, the paced ones that of an
application that waits in between; the first inference, the load and the start of the process are reported beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.runtimes.agent.backends import backend
from edgekron.runtimes.agent.environment import disturbances
from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.agent.memory import Memory
from edgekron.runtimes.devices import Device, open_device
from edgekron.runtimes.ranks import FEWEST
from edgekron.runtimes.results import ColdStart, FileResult, Paced, Report

if TYPE_CHECKING:
    from edgekron.runtimes.devices import Listener

#: (steps done, steps in all, what is being done now)
Progress = Callable[[int, int, str], None]

#: Seconds: of work until it is given up, and of waiting for another measurement on the same machine.
LIMIT = 3600.0
PATIENCE = 60.0

_PACED_SECONDS = 2.0


def bench(
    files: Sequence[str | Path],
    *,
    threads: int = 1,
    rounds: int = 20,
    seconds: float = 4.0,
    pin: bool = True,
    seed: int = 0,
    hertz: float = 0.0,
    device: Device | None = None,
    progress: Progress | None = None,
    limit: float = LIMIT,
    patience: float = PATIENCE,
) -> Report:
    """Measures files against the first of them.

    ``seconds`` is the timed part for each file, spread over ``rounds``; warm-up comes on top. With ``hertz``, each file
    is also run at that rate for two seconds. ``pin`` keeps every process on ``threads`` cores, the fastest ones.
    ``device`` is this machine unless given; the caller closes it. The work is given up after ``limit`` seconds; another
    measurement on that machine is waited for up to ``patience`` seconds. Raises ``RuntimeFailure`` for a file that
    cannot be run, and for a device that fails.
    """
    if not files:
        raise RuntimeFailure("no file to measure was given; name at least one .onnx or .tflite file.")
    if threads < 1 or rounds < 1 or not (0 < seconds < math.inf and 0 < limit < math.inf):
        raise RuntimeFailure(
            f"threads {threads}, rounds {rounds}, seconds {seconds} and limit {limit} must all be positive."
        )
    if not (0 <= hertz < math.inf and 0 <= patience < math.inf):
        raise RuntimeFailure(f"the pace {hertz} and the patience {patience} must not be negative.")
    request = {
        "do": "measure",
        "threads": threads,
        "rounds": rounds,
        "seconds": seconds,
        "pin": pin,
        "seed": seed,
        "hertz": hertz,
        "paced_seconds": _PACED_SECONDS,
        "limit_s": limit,
        "patience": patience,
    }
    with opened(device) as on:
        answer = on.run_agent({**request, "files": [sent(on, file) for file in files]}, listener(progress))
        _check(answer, len(files), rounds, on.name)
        return _report(on, [str(file) for file in files], threads, seed, answer)


@contextmanager
def opened(device: Device | None) -> Iterator[Device]:
    """A device to use: the caller's own, which stays open, or this machine."""
    if device is not None:
        yield device
        return
    with closing(open_device("local")) as local:
        yield local


def sent(device: Device, file: str | Path) -> dict[str, str]:
    """A file as requests name it, on the device; ``RuntimeFailure`` where it is none."""
    backend(file)
    if not Path(file).is_file():
        raise RuntimeFailure(f"{file} does not exist; check the path.")
    return {"path": device.put(Path(file)), "name": str(file)}


def listener(progress: Progress | None) -> Listener | None:
    """A device's steps as calls of ``progress``."""
    return progress and (lambda step: progress(step["done"], step["total"], step["text"]))


def _check(answer: dict[str, Any], files: int, rounds: int, device: str) -> None:
    """Raises ``RuntimeFailure`` for an answer that has the right shape and is none to what was asked."""
    measured = [file["rounds"] for file in answer["files"]]
    complete = all(
        len(turns) == rounds and all(samples and min(samples) > 0 for samples in turns) for turns in measured
    )
    if len(measured) != files or not complete:
        raise RuntimeFailure(f"{device} sent an answer to another question than it was asked; measure again.")


def _report(device: Device, names: Sequence[str], threads: int, seed: int, answer: dict[str, Any]) -> Report:
    results = tuple(_result(name, file) for name, file in zip(names, answer["files"], strict=True))
    warnings = [
        f"{result.file} had not settled after {result.warm_up} warm-up inferences"
        for result in results
        if not result.settled
    ]
    rounds = len(results[0].rounds)
    if rounds < FEWEST:
        warnings.append(f"intervals over no more than {rounds} rounds promise nothing; give --rounds {FEWEST} or more")
    if any(result.cores is not None and len(result.cores) < threads for result in results):
        warnings.append(f"{threads} threads share fewer cores than that, and wait for each other")
    warnings += [
        f"{result.file} takes longer than one inference at {result.paced.hertz:g} per second may"
        for result in results
        if result.paced and not result.paced.samples
    ]
    facts, before, during, after = (answer[key] for key in ("facts", "before", "during", "after"))
    warnings += disturbances(facts, before, after, during)
    return Report(device.name, threads, seed, facts, before, after, results, tuple(warnings), tuple(during))


def _result(name: str, file: dict[str, Any]) -> FileResult:
    cold = {step: None if value is None else value / 1e9 for step, value in file["cold"].items()}
    paced = file["paced"]
    return FileResult(
        file=name,
        runtime=file["runtime"],
        input=file["input"],
        cores=tuple(file["cores"]) if file["cores"] else None,
        cold=ColdStart(cold["process"], cold["runtime"], file["cold"]["load"] / 1e9, file["cold"]["first"] / 1e9),
        warm_up=file["warm_up"],
        settled=file["settled"],
        rounds=tuple(_seconds(samples) for samples in file["rounds"]),
        memory=Memory(**{number: file["memory"][number] for number in Memory.__dataclass_fields__}),
        paced=Paced(paced["hertz"], _seconds(paced["nanoseconds"])) if paced else None,
    )


def _seconds(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(sample / 1e9 for sample in nanoseconds)
