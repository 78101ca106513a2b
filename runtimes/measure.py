"""Latency and memory of model files on a device, measured so that two files can be compared.

``edgekron.runtimes.rounds`` says how: it runs on the device. One inference is one array in, arrays out, the runtime's
own copies included. The warm inferences are the steady state of a busy application, the paced ones that of an
application that waits in between; the first inference, the load and the start of the process are reported beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.runtimes.backends import backend
from edgekron.runtimes.devices import Device, open_device
from edgekron.runtimes.environment import disturbances
from edgekron.runtimes.errors import RuntimeFailure
from edgekron.runtimes.memory import Memory
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
    if threads < 1 or rounds < 1 or seconds <= 0 or limit <= 0:
        raise RuntimeFailure(f"threads {threads}, rounds {rounds} and seconds {seconds} must all be positive.")
    if hertz < 0 or patience < 0:
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
        return _report(on, threads, seed, answer)


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


def _report(device: Device, threads: int, seed: int, answer: dict[str, Any]) -> Report:
    results = tuple(_result(file) for file in answer["files"])
    warnings = [
        f"{result.file} had not settled after {result.warm_up} warm-up inferences"
        for result in results
        if not result.settled
    ]
    warnings += [
        f"{result.file} takes longer than one inference at {result.paced.hertz:g} per second may"
        for result in results
        if result.paced and not result.paced.samples
    ]
    facts, before, during, after = (answer[key] for key in ("facts", "before", "during", "after"))
    warnings += disturbances(facts, before, after, during)
    return Report(device.name, threads, seed, facts, before, after, results, tuple(warnings), tuple(during))


def _result(file: dict[str, Any]) -> FileResult:
    cold = {name: None if value is None else value / 1e9 for name, value in file["cold"].items()}
    paced = file["paced"]
    return FileResult(
        file=file["name"],
        runtime=file["runtime"],
        input=file["input"],
        cores=tuple(file["cores"]) if file["cores"] else None,
        cold=ColdStart(cold["process"], cold["runtime"], file["cold"]["load"] / 1e9, file["cold"]["first"] / 1e9),
        warm_up=file["warm_up"],
        settled=file["settled"],
        rounds=tuple(_seconds(samples) for samples in file["rounds"]),
        memory=Memory(**{name: file["memory"][name] for name in ("file", "runtime", "loaded", "peak", "steady")}),
        paced=Paced(paced["hertz"], _seconds(paced["nanoseconds"])) if paced else None,
    )


def _seconds(nanoseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(sample / 1e9 for sample in nanoseconds)
