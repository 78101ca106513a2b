"""``edgekron bench`` on an emulated board: instructions of each inference, side by side, and no times."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgekron.errors import UserError

from .measured import arenas, print_arenas
from .model_files import write_json
from .output import count, print_table, progress_bars

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from edgekron.runtimes.devices.emulation import FileCount, InstructionReport
    from edgekron.runtimes.devices.emulation.device import EmulatedDevice

#: Columns of the classes: an instruction is counted in "instructions" and in at most one of the next four.
_COLUMNS = {
    "loads": "loads",
    "stores": "stores",
    "branches": "branches",
    "vector_float": "vector, float",
    "float_macs": "float MACs",
    "integer_macs": "integer MACs",
    "dot_products": "dot products",
}
_CAPTION = (
    "Median of single inferences on one thread. Vector and float instructions include the multiply-accumulates (MACs), "
    "each of several lanes. Instructions are no time: how long they take depends on the processor and its memory."
)


#: Options of ``bench`` that need a clock, threads or memory of the board's own, and what they are when not given.
_NEED_A_BOARD = {
    "threads": 1,
    "rounds": 20,
    "seconds": 4.0,
    "pace": 0.0,
    "no_pin": False,
    "patience": 60.0,
    "layers": False,
    "prove_memory": None,
}


def bench_instructions(device: EmulatedDevice, files: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Counts, prints one row a file and writes the report; exit code 1 where outputs differ from this machine's."""
    for option, usual in _NEED_A_BOARD.items():
        if getattr(arguments, option) != usual:
            raise UserError(
                f"--{option.replace('_', '-')} says nothing about {device.name}, which counts the instructions of one "
                "thread; leave it out, or use another device."
            )
    with progress_bars() as bars:
        report = device.count(
            files, timeout=arguments.limit, progress=lambda _, done, total: bars("counting", done, total)
        )
    found = arenas(files, device) if arguments.arena else {}
    if arguments.json:
        extra = {"arenas": {file: vars(arena) for file, arena in found.items()}} if arguments.arena else {}
        write_json(arguments.json, report.to_json() | extra, arguments.force)
    _print(report)
    if arguments.arena:
        print_arenas(found)
    for warning in report.warnings:
        sys.stderr.write(f"note: {warning}\n")
    return 0 if report.agree else 1


def _print(report: InstructionReport) -> None:
    shown = [name for name in _COLUMNS if any(file.count(name) for file in report.files)]
    rows = [
        [
            file.file,
            f"{file.runtime['runtime']} {file.runtime['version']}",
            f"{file.instructions:,}",
            f"{ratio:.4f}" if index else "reference",
            *(count(file.count(name)) for name in shown),
            _outputs(file),
        ]
        for index, (file, ratio) in enumerate(zip(report.files, report.ratios, strict=True))
    ]
    print_table(
        f"Instructions of one inference, {report.device} ({report.board['processor']}, {report.board['emulator']})",
        ["<file", "<runtime", "instructions", "ratio", *(_COLUMNS[name] for name in shown), "<outputs"],
        rows,
        _CAPTION,
    )


def _outputs(file: FileCount) -> str:
    """How the outputs on the board compare with the same file's outputs on this machine."""
    if file.agreement.differing == 0:
        return "as here"
    close = f"{file.agreement.relative:.0e} from here"
    return close if file.agreement.equal else f"WRONG, {close}"
