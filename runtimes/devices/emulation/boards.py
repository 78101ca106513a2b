"""The boards that can be emulated: the processor that qemu plays, and the board's own files about that processor.

A runtime picks its kernels by two sources that must agree: the instruction sets that the kernel announces (qemu's
``-cpu`` decides) and the model of the core in ``/proc/cpuinfo``. XNNPACK executes 1.5 times as many instructions on a
Cortex-A53 as on a Cortex-A72 for the same convolution, by the second alone. ``-cpu max``, qemu's default, is never
used: no board has that processor, and qemu 7.2 computes wrong int8 results with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Cores of each of these boards.
CORES = 4


@dataclass(frozen=True)
class EmulatedBoard:
    """A board as its own kernel describes it.

    ``cpu`` is qemu's name of the core. ``part``, ``variant`` and ``revision`` are fields of ARM's main ID register;
    ``features`` are the kernel's names of the core's instruction sets; ``clock`` is the rate of the generic timer in
    the kernel's unit (BogoMIPS).
    """

    name: str
    title: str
    cpu: str
    part: int
    variant: int
    revision: int
    features: str
    clock: str

    def cpuinfo(self) -> str:
        """The text of ``/proc/cpuinfo``."""
        core = (
            "processor\t: {}\n"
            f"BogoMIPS\t: {self.clock}\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.variant:#x}\n"
            f"CPU part\t: {self.part:#05x}\n"
            f"CPU revision\t: {self.revision}\n\n"
        )
        return "".join(core.format(index) for index in range(CORES)) + f"Model\t\t: {self.title}\n"

    def files(self) -> Mapping[str, str]:
        """Text by path (no leading slash) of what a program on the board would read about its processor.

        The folder of the thermal zones is there and empty: an emulated board has no temperature, and must not show
        the one of the machine that emulates it.
        """
        cores = f"0-{CORES - 1}\n"
        return {
            "proc/cpuinfo": self.cpuinfo(),
            "proc/device-tree/model": f"{self.title} (emulated)\0",
            "sys/class/thermal/.empty": "",
            **{f"sys/devices/system/cpu/{name}": cores for name in ("online", "possible", "present")},
        }


_SHORT = "fp asimd evtstrm crc32 cpuid"
_LONG = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"  # cortex-a76
)

BOARDS = {
    board.name: board
    for board in (
        EmulatedBoard("pi3", "Raspberry Pi 3 Model B", "cortex-a53", 0xD03, 0, 4, _SHORT, "38.40"),
        EmulatedBoard("pi4", "Raspberry Pi 4 Model B", "cortex-a72", 0xD08, 0, 3, _SHORT, "108.00"),
        EmulatedBoard("pi5", "Raspberry Pi 5 Model B", "cortex-a76", 0xD0B, 4, 1, _LONG, "108.00"),
    )
}


def find_board(name: str) -> EmulatedBoard:
    """The board of a name; ``RuntimeFailure`` for an unknown one."""
    if name not in BOARDS:
        raise RuntimeFailure(f"there is no emulated board {name!r}; use one of {', '.join(BOARDS)}.")
    return BOARDS[name]
