"""A device without Python: TensorFlow Lite's official ``benchmark_model`` measures, and its report is read.

The program times inferences itself and prints their mean, not each inference: in every round each file is run by a
fresh process, and the mean of that process is the round's one sample. So percentiles of the samples are percentiles of
rounds. The program does not tell the start of its process from the start of the runtime, and of memory only the growth;
so both are left out but for the file's size.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgekron.runtimes import schema
from edgekron.runtimes.agent.errors import OutOfTimeError, RuntimeFailure
from edgekron.runtimes.agent.store import Store, default_folder

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import (
        DescribeAnswer,
        FileAnswer,
        MachineFacts,
        MachineState,
        MeasureAnswer,
        Message,
        WorkStep,
    )

    from .adb import AdbTransport
    from .device import Listener

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_TIMES = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}"
)
_COUNT = re.compile(r"count=([0-9]+) ")
_NAME = re.compile(r"[0-9a-f]{64}(\.\w+)?")
_SHORT = 60.0


@dataclass(frozen=True)
class Printed:
    """One run of the program: nanoseconds, and the number of inferences before those of the mean."""

    init: int
    first: int
    mean: int
    warm_up: int


def parse(text: str) -> Printed:
    """Reads the program's report; ``RuntimeFailure`` with the last line of a report without times."""
    times = _TIMES.search(text)
    if not times:
        last = schema.plain((text.strip().splitlines() or ["nothing"])[-1], 200)
        raise RuntimeFailure(f"benchmark_model printed no times; its last words: {last}")
    counts = [int(count) for count in _COUNT.findall(text)]
    try:
        init, first, _, mean = (round(1000 * float(value)) for value in times.groups())
    except (ValueError, OverflowError):
        raise RuntimeFailure(f"benchmark_model printed times that are none: {times.group()[:200]}") from None
    return Printed(init, first, mean, sum(counts[:-1]))


class BenchmarkModelDevice:
    """See ``Device``; answers ``measure`` alone."""

    unit = "second"

    def __init__(self, name: str, transport: AdbTransport, program: str, folder: str, keep: bool = False) -> None:
        self.name = name
        self._keep = keep
        self._transport = transport
        self._folder = folder
        self._sent: dict[str, int] = {}
        if not Path(program).is_file():
            raise RuntimeFailure(f"{program} does not exist; give the benchmark_model program for the device.")
        transport.connect()
        self._shell("mkdir", "-p", folder)
        self._program = self.put(Path(program))
        self._shell("chmod", "700", self._program)

    def put(self, file: Path) -> str:
        """See ``Device.put``."""
        data = file.read_bytes()
        path = f"{self._folder}/{hashlib.sha256(data).hexdigest()}{file.suffix.lower()}"
        if path not in self._sent:
            # The size tells a file that arrived whole from one that did not: adb checks what it copies.
            if self._shell("stat", "-c", "%s", path, must=False).strip() != str(len(data)):
                self._transport.push(str(file), path)
            self._sent[path] = len(data)
        return path

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """See ``Device.run_agent``."""
        if request["do"] != "measure" or request["hertz"]:
            what = "paced inferences" if request["do"] == "measure" else f"'{request['do']}'"
            raise RuntimeFailure(f"{self.name} measures by benchmark_model, which has no {what}; install Python on it.")
        for file in request["files"]:
            if not file["path"].endswith(".tflite"):
                raise RuntimeFailure(
                    f"{file['name']} is no .tflite file, and benchmark_model on {self.name} runs these."
                )
        # The program knows of no other one; this machine's lock is for all that measure on this device from here.
        phone = hashlib.sha256(self._transport.serial.encode()).hexdigest()[:16]
        waiting: WorkStep = {"done": 0, "total": 1, "text": "waiting for another measurement"}
        lock = Store(default_folder() / "phones" / phone)
        with lock.alone("measure", request["patience"], lambda: listener(waiting) if listener else None):
            return dict(self._take_turns(request, listener))

    def _take_turns(self, request: Message, listener: Listener | None) -> MeasureAnswer:
        """All rounds of a ``measure`` request."""
        deadline = time.monotonic() + request["limit_s"]
        rounds, files = request["rounds"], request["files"]
        facts, before = self._describe(), self._state()
        runs: list[list[Printed]] = [[] for _ in files]
        during: list[MachineState] = []
        shuffle = random.Random(request["seed"]).sample  # noqa: S311 - an order, not a secret
        for turn in range(rounds):
            if listener:
                listener({"done": turn, "total": rounds, "text": f"round {turn + 1} of {rounds}"})
            for index in shuffle(range(len(files)), len(files)):
                runs[index].append(self._measure(request, files[index], deadline))
            during.append(self._state())
        if listener:
            listener({"done": rounds, "total": rounds, "text": "done"})
        results = [self._result(file, printed) for file, printed in zip(files, runs, strict=True)]
        answer: MeasureAnswer = {
            "facts": facts,
            "before": before,
            "during": during,
            "after": self._state(),
            "files": results,
        }
        schema.check(answer, "measure", self.name)
        return answer

    def facts(self) -> DescribeAnswer:
        """See ``Device.facts``."""
        free = self._shell("df", "-k", self._folder, must=False).split()[-3:]
        kilobytes = next((int(word) for word in free if word.isdigit()), 0)
        return {
            "facts": self._describe(),
            "state": self._state(),
            "runtimes": {"benchmark_model": "given"},
            "disk": {"folder": self._folder, "free": 1024 * kilobytes},
            "python": "none",
            "protocol": 0,
        }

    def clean(self) -> None:
        """Removes all that was ever put on the device."""
        names = self._shell("ls", self._folder, must=False).split()
        paths = [f"{self._folder}/{name}" for name in names if _NAME.fullmatch(name)]
        if paths:
            self._shell("rm", "-f", *paths)
        self._shell("rmdir", self._folder, must=False)  # stays where others have put something there
        self._sent.clear()

    def close(self) -> None:
        """See ``Device.close``."""
        if self._sent and not self._keep:
            self._shell("rm", "-f", *self._sent, must=False)
        self._transport.close()

    def _measure(self, request: Message, file: Message, deadline: float) -> Printed:
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutOfTimeError(
                f"the work took longer than its limit of {request['limit_s']:g} seconds; give it more time, or do less."
            )
        seconds = request["seconds"] / request["rounds"]
        words = [f"--graph={file['path']}", f"--num_threads={request['threads']}", "--num_runs=1"]
        words += [f"--min_secs={seconds:.3f}", f"--warmup_min_secs={max(0.1, seconds / 10):.3f}", "--use_xnnpack=true"]
        try:
            return parse(self._shell(self._program, *words, timeout=left))
        except RuntimeFailure as error:
            raise RuntimeFailure(f"{file['name']}: {str(error).replace(file['path'], file['name'])}") from None

    def _result(self, file: Message, runs: list[Printed]) -> FileAnswer:
        first = runs[0]
        size = self._sent[file["path"]]
        return {
            "name": file["name"],
            "runtime": {"runtime": "benchmark_model", "version": "", "samples": "mean of each process"},
            "input": {"name": "unknown", "shape": [], "dtype": "unknown", "layout": "unknown"},
            "outputs": [],
            "cores": None,
            "cold": {"process": None, "runtime": None, "load": first.init, "first": first.first},
            "warm_up": first.warm_up,
            "settled": True,
            "rounds": [[run.mean] for run in runs],
            "paced": None,
            "memory": {"file": size, "runtime": None, "loaded": None, "peak": None, "steady": None},
        }

    def _describe(self) -> MachineFacts:
        total = re.search(r"MemTotal:\s+(\d+) kB", self._shell("cat", "/proc/meminfo", must=False))
        cores = re.findall(r"^processor\s*:", self._shell("cat", "/proc/cpuinfo", must=False), re.MULTILINE)
        facts = {
            "board": self._property("ro.product.model"),
            "processor": self._property("ro.soc.model") or self._property("ro.board.platform"),
            "machine": self._property("ro.product.cpu.abi"),
            "system": "Android",
            "kernel": self._property("ro.build.version.release"),
            "cores": len(cores) or None,
            "memory": int(total.group(1)) * 1024 if total else None,
        }
        return cast("MachineFacts", {name: value for name, value in facts.items() if value is not None})

    def _property(self, name: str) -> str | None:
        return schema.plain(self._shell("getprop", name, must=False).strip(), 200) or None

    def _state(self) -> MachineState:
        texts = self._shell("sh", "-c", "cat /sys/class/thermal/thermal_zone*/temp", must=False).split()
        readings = [int(text) / 1000 for text in texts if text.lstrip("-").isdigit()]
        return {"temperature": {f"zone{index}": value for index, value in enumerate(readings)}} if readings else {}

    def _shell(self, *words: str, must: bool = True, timeout: float = _SHORT) -> str:
        code, printed, said = self._transport.run(self._transport.command(words), timeout=timeout)
        if code and must:
            # benchmark_model reports on standard error, and so do its failures.
            raise self._transport.explain(code, said or printed)
        return printed + said
