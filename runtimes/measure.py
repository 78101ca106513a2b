"""Latency and memory of model files on a device, measured so that two files can be compared.

The measuring itself happens on the device and is described in ``edgekron.runtimes.agent.rounds``. One inference is one
array in, arrays out, the runtime's own copies included. Warm inferences are the steady state of a busy application,
paced ones the steady state of an application that waits in between; the first inference, the load and the start of the
process are reported beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .agent.backends import backend
from .agent.environment import disturbances
from .agent.errors import RuntimeFailure
from .agent.memory import Memory
from .devices import Device, open_device
from .ranks import FEWEST
from .results import ColdStart, FileResult, Paced, Report

if TYPE_CHECKING:
    from .agent.messages import FileAnswer, MeasureAnswer, Progress
    from .devices import Listener

#: Seconds: of work until it is given up, and of waiting for another measurement on the same machine.
LIMIT = 3600.0
PATIENCE = 60.0

_PACED_SECONDS = 2.0


@dataclass(frozen=True)
class Measuring:
    """How files are measured.

    ``seconds`` is the timed part for each file, spread over ``rounds``; warm-up comes on top. With ``hertz``, each file
    is also run at that rate for two seconds. ``pin`` keeps every process on ``threads`` cores, the fastest ones. The
    work is given up after ``limit`` seconds; another measurement on the same machine is waited for up to ``patience``
    seconds. Raises ``RuntimeFailure`` for numbers that cannot be.
    """

    threads: int = 1
    rounds: int = 20
    seconds: float = 4.0
    pin: bool = True
    seed: int = 0
    hertz: float = 0.0
    limit: float = LIMIT
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        finite = 0 < self.seconds < math.inf and 0 < self.limit < math.inf
        if self.threads < 1 or self.rounds < 1 or not finite:
            raise RuntimeFailure(
                f"threads {self.threads}, rounds {self.rounds}, seconds {self.seconds} and limit {self.limit} must all "
                "be positive."
            )
        if not (0 <= self.hertz < math.inf and 0 <= self.patience < math.inf):
            raise RuntimeFailure(f"the pace {self.hertz} and the patience {self.patience} must not be negative.")


_USUAL = Measuring()


def bench(
    files: Sequence[str | Path],
    measuring: Measuring = _USUAL,
    *,
    device: Device | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measures files against the first of them.

    ``device`` is this machine unless given; the caller closes it. Raises ``RuntimeFailure`` for a file that cannot be
    run, and for a device that fails.
    """
    if not files:
        raise RuntimeFailure("no file to measure was given; name at least one .onnx or .tflite file.")
    request = {
        "do": "measure",
        "threads": measuring.threads,
        "rounds": measuring.rounds,
        "seconds": measuring.seconds,
        "pin": measuring.pin,
        "seed": measuring.seed,
        "hertz": measuring.hertz,
        "paced_seconds": _PACED_SECONDS,
        "limit_s": measuring.limit,
        "patience": measuring.patience,
    }
    with opened(device) as on:
        sent_files = [sent(on, file) for file in files]
        answer = cast("MeasureAnswer", on.run_agent({**request, "files": sent_files}, listener(progress)))
        _check(answer, len(files), measuring.rounds, on.name)
        return _report(on, [str(file) for file in files], measuring, answer)


@contextmanager
def opened(device: Device | None) -> Iterator[Device]:
    """A device to use: the caller's own, which stays open, or this machine."""
    if device is not None:
        yield device
        return
    with closing(open_device("local")) as local:
        yield local


def sent(device: Device, file: str | Path) -> dict[str, str]:
    """A file of this machine, sent to the device, as requests name it; ``RuntimeFailure`` for no model file."""
    backend(file)
    if not Path(file).is_file():
        raise RuntimeFailure(f"{file} does not exist; check the path.")
    return {"path": device.put(Path(file)), "name": str(file)}


def listener(progress: Progress | None) -> Listener | None:
    """A device's steps as calls of ``progress``."""
    return progress and (lambda step: progress(step["text"], step["done"], step["total"]))


def _check(answer: MeasureAnswer, files: int, rounds: int, device: str) -> None:
    """Raises ``RuntimeFailure`` for an answer with other files or rounds than were asked for."""
    measured = [file["rounds"] for file in answer["files"]]
    complete = all(
        len(turns) == rounds and all(samples and min(samples) > 0 for samples in turns) for turns in measured
    )
    if len(measured) != files or not complete:
        raise RuntimeFailure(f"{device} sent an answer to another question than it was asked; measure again.")


def _report(device: Device, names: Sequence[str], measuring: Measuring, answer: MeasureAnswer) -> Report:
    results = tuple(_result(name, file) for name, file in zip(names, answer["files"], strict=True))
    warnings = [
        f"{result.file} had not settled after {result.warm_up} warm-up inferences"
        for result in results
        if not result.settled
    ]
    rounds, threads = measuring.rounds, measuring.threads
    if rounds < FEWEST:
        warnings.append(f"intervals over no more than {rounds} rounds promise nothing; give --rounds {FEWEST} or more")
    if any(result.cores is not None and len(result.cores) < threads for result in results):
        warnings.append(f"{threads} threads share fewer cores than that, and wait for each other")
    warnings += [
        f"{result.file} takes longer than one inference at {result.paced.hertz:g} per second may"
        for result in results
        if result.paced and not result.paced.samples
    ]
    facts, before, during, after = answer["facts"], answer["before"], answer["during"], answer["after"]
    warnings += disturbances(facts, before, after, during)
    return Report(device.name, threads, measuring.seed, facts, before, after, results, tuple(warnings), tuple(during))


def _result(name: str, file: FileAnswer) -> FileResult:
    cold, paced = file["cold"], file["paced"]
    process, runtime = (None if time is None else time / 1e9 for time in (cold["process"], cold["runtime"]))
    return FileResult(
        file=name,
        runtime=file["runtime"],
        input=file["input"],
        cores=tuple(file["cores"]) if file["cores"] else None,
        cold=ColdStart(process, runtime, cold["load"] / 1e9, cold["first"] / 1e9),
        warm_up=file["warm_up"],
        settled=file["settled"],
        rounds=tuple(_seconds(samples) for samples in file["rounds"]),
        memory=Memory.read(file["memory"]),
        paced=Paced(paced["hertz"], _seconds(paced["nanoseconds"])) if paced else None,
    )


def _seconds(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(sample / 1e9 for sample in nanoseconds)
