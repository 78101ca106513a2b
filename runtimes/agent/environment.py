"""The machine that measures: its facts (``describe``), and its state at this moment (``state``).

Everything is read from files of the Linux kernel and the standard library; facts that a machine does not tell are
absent. A state taken before and one taken after a measurement show what disturbed the measurement: ``disturbances``.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from .messages import MachineFacts, MachineState

    Counter = Literal["core_throttles", "quota_throttles", "swapped_in", "swapped_out"]

_CPUS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
#: Raspberry Pi firmware: bits 0-3 say under-voltage, capped, throttled, soft limit now; bits 16-19 since boot.
_PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_PI_NOW = 0xF
#: The firmware's own program, where the file is missing.
_VCGENCMD = "/usr/bin/vcgencmd"
#: A clock that falls below this share of its highest was throttled or scaled down.
_STEADY_CLOCK = 0.85

#: Instruction sets that decide which kernels a runtime picks.
_FEATURES = re.compile(r"sse4_1|avx\w*|fma|f16c|amx\w*|neon|vfpv4|asimd\w*|fphp|i8mm|bf16|sve\w*")

#: Counters of the kernel that must stand still while measuring, and what it means when one moves.
_COUNTERS: dict[Counter, str] = {
    "core_throttles": "the processor throttled because of heat",
    "quota_throttles": "the container ran out of its processor quota",
    "swapped_in": "memory was swapped in",
    "swapped_out": "memory was swapped out",
}


def describe() -> MachineFacts:
    """The facts that do not change while measuring: processor, cores, governor, memory, kernel, versions."""
    info = _text("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
    features = set(flags.group(1).split()) if flags else set()
    facts = {
        "processor": _processor(info),
        "board": _text("/proc/device-tree/model").strip("\0\n ") or None,
        "machine": platform.machine(),
        "virtual": "hypervisor" in features,
        "features": sorted(name for name in features if _FEATURES.fullmatch(name)),
        "cores": os.cpu_count(),
        "allowed_cores": allowed_cores(),
        "governor": _each_core("cpufreq/scaling_governor"),
        "memory": _meminfo("MemTotal"),
        "swap": _meminfo("SwapTotal"),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "clock": _clock(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    return cast("MachineFacts", {name: value for name, value in facts.items() if value is not None})


def state() -> MachineState:
    """The facts that may change: load, frequencies, temperatures, throttling, swap, free memory."""
    swap = dict(re.findall(r"^(pswp(?:in|out)) (\d+)$", _text("/proc/vmstat"), re.MULTILINE))
    steal = re.search(r"^cpu +(?:\d+ +){7}(\d+)", _text("/proc/stat"))
    quota = re.search(r"^nr_throttled (\d+)$", _text("/sys/fs/cgroup/cpu.stat"), re.MULTILINE)
    throttled = _text(_PI_THROTTLED).strip() or _vcgencmd()
    facts = {
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "available": _meminfo("MemAvailable"),
        "frequency": _frequencies(),
        "temperature": _temperatures(),
        "throttled": int(throttled, 16) if throttled else None,
        "core_throttles": _throttle_count(),
        "quota_throttles": int(quota.group(1)) if quota else None,
        "swapped_in": int(swap["pswpin"]) if "pswpin" in swap else None,
        "swapped_out": int(swap["pswpout"]) if "pswpout" in swap else None,
        "stolen_ticks": int(steal.group(1)) if steal else None,
    }
    return cast("MachineState", {name: value for name, value in facts.items() if value is not None})


def disturbances(
    facts: MachineFacts, before: MachineState, after: MachineState, during: Sequence[MachineState] = ()
) -> list[str]:
    """Sentences about all that may have spoilt a measurement between two states, with the states between them."""
    found = []
    if "clock" in facts:
        found.append(f"the machine is emulated and its clock counts {facts['clock']}: 1 ms is a million, and no time")
    if any(governor != "performance" for governor in facts.get("governor", {}).values()):
        found.append("the frequency governor is not 'performance', so the clock may vary")
    if any(state.get("throttled", 0) & _PI_NOW for state in (before, *during, after)):
        found.append("the board was throttled or under-voltage; cool it or change its power supply")
    slowest, fastest = _clock_range(during)
    if slowest < _STEADY_CLOCK * fastest:
        found.append(f"the clock fell to {slowest / 1e6:.0f} MHz, from {fastest / 1e6:.0f} MHz, while measuring")
    found += [
        f"{meaning} ({after[name] - before[name]} times)"
        for name, meaning in _COUNTERS.items()
        if name in before and after.get(name, 0) > before[name]
    ]
    load, cores = before.get("load"), facts.get("cores")
    if load and cores and load[0] > 0.5 * cores:
        found.append(f"the machine was busy before the start (load {load[0]:.1f} on {cores} cores)")
    return found


def _clock() -> str | None:
    """The unit of a clock that counts no time: the command line of an emulated machine's kernel names it."""
    found = re.search(r"(?:^|\s)edgekron\.clock=(\w+)", _text("/proc/cmdline"))
    return found.group(1) if found else None


def _clock_range(states: Sequence[MachineState]) -> tuple[float, float]:
    """The lowest and the highest of each state's fastest clock, in hertz; zeros where none is told."""
    clocks = [max(state["frequency"].values()) for state in states if state.get("frequency")]
    return min(clocks, default=0), max(clocks, default=0)


def allowed_cores() -> list[int] | None:
    """The cores this process may run on; None where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def fastest_cores(count: int) -> list[int] | None:
    """``count`` allowed cores, the fastest kind first and, among equals, the last: core 0 takes most interrupts."""
    allowed = allowed_cores()
    if allowed is None:
        return None

    def speed(core: int) -> tuple[int, int]:
        folder = _CPUS / f"cpu{core}"
        capacity = _text(folder / "cpu_capacity") or _text(folder / "cpufreq/cpuinfo_max_freq")
        return int(capacity or 0), core

    return sorted(sorted(allowed, key=speed, reverse=True)[:count])


def _vcgencmd() -> str:
    """The firmware's throttling bits in hexadecimal; nothing where its program is missing."""
    if not Path(_VCGENCMD).exists():
        return ""
    try:
        done = subprocess.run([_VCGENCMD, "get_throttled"], capture_output=True, check=False, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    bits = re.search(rb"0x([0-9a-fA-F]+)", done.stdout)
    return bits.group(1).decode() if bits else ""


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except (OSError, ValueError):
        return ""


def _processor(info: str) -> str | None:
    name = re.search(r"^(?:model name|Model name|Hardware)\s*:\s*(.+)$", info, re.MULTILINE)
    if name:
        return name.group(1).strip()
    arm = re.search(r"^CPU implementer\s*:\s*(\S+).*?^CPU part\s*:\s*(\S+)", info, re.MULTILINE | re.DOTALL)
    return f"ARM implementer {arm.group(1)} part {arm.group(2)}" if arm else platform.processor() or None


def _each_core(file: str) -> dict[str, str] | None:
    """The text of a file of each core, without the cores that lack it."""
    texts = {core.name: _text(core / file).strip() for core in sorted(_CPUS.glob("cpu[0-9]*"))}
    return {core: text for core, text in texts.items() if text} or None


def _frequencies() -> dict[str, int] | None:
    scaling = _each_core("cpufreq/scaling_cur_freq")
    if scaling:
        # A core that sleeps has "<unknown>".
        return {core: int(kilohertz) * 1000 for core, kilohertz in scaling.items() if kilohertz.isdigit()} or None
    megahertz = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return {f"cpu{index}": round(float(value) * 1e6) for index, value in enumerate(megahertz)} or None


def _temperatures() -> dict[str, float] | None:
    zones = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        reading = _text(zone / "temp").strip()
        if reading.lstrip("-").isdigit():
            zones[_text(zone / "type").strip() or zone.name] = int(reading) / 1000
    return zones or None


def _throttle_count() -> int | None:
    counts = _each_core("thermal_throttle/core_throttle_count")
    return sum(int(count) for count in counts.values()) if counts else None


def _meminfo(name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
