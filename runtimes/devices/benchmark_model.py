"""A device without Python: TensorFlow Lite's official ``benchmark_model`` measures, and its report is read.

The program times inferences itself and prints their mean, not each of them: in every round each file is run by a fresh
process, and the mean of that process is the round's one sample. Percentiles of such samples are those of rounds. The
start of a process cannot be told from that of the runtime, and memory is the growth since the program's start, so both
are left out but for the file's size and that growth.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes import schema
from edgekron.runtimes.errors import RuntimeFailure

if TYPE_CHECKING:
    from edgekron.runtimes.devices.adb import AdbTransport
    from edgekron.runtimes.devices.device import Listener, Message

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_TIMES = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}"
)
_COUNT = re.compile(r"count=([0-9]+) ")
_MEMORY = re.compile(rf"Memory footprint delta from the start of the tool \(MB\): init={_NUMBER} overall={_NUMBER}")


@dataclass(frozen=True)
class Printed:
    """One run of the program: nanoseconds, numbers of inferences, and bytes of growth (None where not printed)."""

    init: int
    first: int
    mean: int
    count: int
    warm_up: int
    grown_by_load: int | None
    grown: int | None


def parse(text: str) -> Printed:
    """Reads the program's report; ``RuntimeFailure`` with its last line where it holds no times."""
    times = _TIMES.search(text)
    if not times:
        last = "".join(c if c.isprintable() else " " for c in (text.strip().splitlines() or ["nothing"])[-1][:200])
        raise RuntimeFailure(f"benchmark_model printed no times; its last words: {last}")
    counts = [int(count) for count in _COUNT.findall(text)]
    memory = _MEMORY.search(text)
    init, first, _, mean = (round(1000 * float(value)) for value in times.groups())
    grown = [round(2**20 * float(value)) for value in memory.groups()] if memory else [None, None]
    return Printed(init, first, mean, counts[-1] if counts else 1, sum(counts[:-1]), grown[0], grown[1])


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
        rounds, files = request["rounds"], request["files"]
        facts, before = self._describe(), self._state()
        runs: list[list[Printed]] = [[] for _ in files]
        during = []
        shuffle = random.Random(request["seed"]).sample  # noqa: S311 - an order, not a secret
        for turn in range(rounds):
            if listener:
                listener({"done": turn, "total": rounds, "text": f"round {turn + 1} of {rounds}"})
            for index in shuffle(range(len(files)), len(files)):
                runs[index].append(self._measure(request, files[index]))
            during.append(self._state())
        if listener:
            listener({"done": rounds, "total": rounds, "text": "done"})
        results = [self._result(file, printed) for file, printed in zip(files, runs, strict=True)]
        answer = {"facts": facts, "before": before, "during": during, "after": self._state(), "files": results}
        schema.check(answer, "measure", self.name)
        return answer

    def facts(self) -> Message:
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

    def close(self) -> None:
        """See ``Device.close``."""
        if self._sent and not self._keep:
            self._shell("rm", "-f", *self._sent, must=False)
        self._transport.close()

    def _measure(self, request: Message, file: Message) -> Printed:
        seconds = request["seconds"] / request["rounds"]
        words = [f"--graph={file['path']}", f"--num_threads={request['threads']}", "--num_runs=1"]
        words += [f"--min_secs={seconds:.3f}", f"--warmup_min_secs={max(0.1, seconds / 10):.3f}", "--use_xnnpack=true"]
        try:
            return parse(self._shell(self._program, *words))
        except RuntimeFailure as error:
            raise RuntimeFailure(f"{file['name']}: {str(error).replace(file['path'], file['name'])}") from None

    def _result(self, file: Message, runs: list[Printed]) -> Message:
        first = runs[0]
        size = self._sent[file["path"]]
        tensor = {"name": "unknown", "shape": [], "dtype": "unknown", "layout": "unknown"}
        return {
            "name": file["name"],
            "runtime": {"runtime": "benchmark_model", "version": "", "samples": "mean of each process"},
            "input": tensor,
            "outputs": [],
            "cores": None,
            "cold": {"process": None, "runtime": None, "load": first.init, "first": first.first},
            "warm_up": first.warm_up,
            "settled": True,
            "rounds": [[run.mean] for run in runs],
            "paced": None,
            "memory": {"file": size, "runtime": None, "loaded": None, "peak": None, "steady": None},
        }

    def _describe(self) -> Message:
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
        return {name: value for name, value in facts.items() if value is not None}

    def _property(self, name: str) -> str | None:
        return self._shell("getprop", name, must=False).strip() or None

    def _state(self) -> Message:
        texts = self._shell("sh", "-c", "cat /sys/class/thermal/thermal_zone*/temp", must=False).split()
        readings = [int(text) / 1000 for text in texts if text.lstrip("-").isdigit()]
        return {"temperature": {f"zone{index}": value for index, value in enumerate(readings)}} if readings else {}

    def _shell(self, *words: str, must: bool = True) -> str:
        code, printed, said = self._transport.run(self._transport.command(words), timeout=None)
        if code and must:
            # benchmark_model reports on standard error, and so do its failures.
            raise self._transport.explain(code, said or printed)
        return printed + said
