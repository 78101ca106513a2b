"""``emulated:pi4``: a board that qemu plays on this machine, running the runtimes' real ARM code.

An emulator has neither a clock of the board's nor memory of its own, so neither time nor memory is ever reported:
requests that need one are refused. ``EmulatedDevice.count`` gives the instructions of each inference, by class, and
compares the outputs.

``emulated:pi4:ssh`` is the same system as a virtual machine, driven like any board over SSH: the way to try all that
boards do, from the first connection to the report. Its clock counts instructions, and every report says so.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from edgekron.runtimes import schema
from edgekron.runtimes.agent.connection import Connection
from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.archive import archive
from edgekron.runtimes.devices.answers import listen
from edgekron.runtimes.devices.device import Target
from edgekron.runtimes.devices.ssh import open_ssh

from .boards import EmulatedBoard, find_board
from .boot import Machine
from .count import count_instructions
from .installation import Installation, cache_folder
from .machine import MachineFiles
from .packages import last_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.runtimes.agent.messages import DescribeAnswer, MachineFacts, Message, Progress
    from edgekron.runtimes.devices.device import Listener

    from .results import InstructionReport

#: Facts that the agent reads from the machine that emulates, and that are none of the board's.
_NOT_THE_BOARDS = ("allowed_cores", "governor", "kernel", "memory", "swap")


def open_emulated(place: str, cache: Path | None = None, alias: str = "") -> EmulatedDevice | MachineDevice:
    """The board of "pi4", or the running machine of "pi4:ssh"; ``alias`` replaces that name in reports.

    Raises ``RuntimeFailure`` for an unknown name, and for a board that has not been built yet.
    """
    name, _, how = place.partition(":")
    board = find_board(name)
    if how not in ("", "ssh"):
        raise RuntimeFailure(f"emulated:{place} is no device; use emulated:{name}, or emulated:{name}:ssh.")
    folder = cache or cache_folder()
    if how:
        return MachineDevice(board, MachineFiles.open(folder, name), alias)
    return EmulatedDevice(board, Installation.open(folder, name), alias)


class EmulatedDevice:
    """See ``Device``; every process is an emulator of its own, so nothing runs between two calls."""

    unit = "instruction"

    def __init__(self, board: EmulatedBoard, installation: Installation, name: str = "") -> None:
        self.name = name or f"emulated:{board.name}"
        self._board = board
        self._installation = installation
        self._folder = tempfile.TemporaryDirectory(prefix="edgekron-emulated-")
        self._home = Path(self._folder.name)
        self._agent = self._home / "agent.pyz"
        self._agent.write_bytes(archive())

    def put(self, file: Path) -> str:
        """The file itself: the board sees this machine's files."""
        return str(file.resolve())

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """See ``Device.run_agent``: only ``arena`` can be answered without a clock and without memory of its own."""
        if request["do"] != "arena":
            raise RuntimeFailure(
                f"{self.name} counts instructions; it has neither times nor memory of its own, and '{request['do']}' "
                "needs them: use another device for that."
            )
        file = request["file"]
        if listener:
            listener({"done": 0, "total": 1, "text": f"planning {file['name']}"})
        with self.start(file["name"]) as worker:
            answer = worker.ask("arena", file=file["path"], timeout=request["limit_s"])
        schema.check(answer, "arena", self.name)
        return answer

    def start(self, subject: str) -> Connection:
        """A worker (``edgekron.runtimes.agent.worker``) on the board; ``subject`` is named in errors."""
        return Connection(self._command("work"), self._environment(), subject)

    def count(
        self,
        files: Sequence[str | Path],
        *,
        inferences: int = 3,
        timeout: float = 600,
        progress: Progress | None = None,
    ) -> InstructionReport:
        """The instructions of each file's inference: see ``count_instructions``."""
        report = count_instructions(
            files, self._installation, self._board, inferences=inferences, timeout=timeout, progress=progress
        )
        return replace(report, device=self.name)

    def facts(self) -> DescribeAnswer:
        """See ``Device.facts``; with what plays the board."""
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                self._command("--folder", str(self._home / "store"), "describe"),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process,
        ):
            answer = listen(cast("IO[bytes]", process.stdout), "describe", self.name)
            if answer is None:
                process.wait()
                errors.seek(0)
                reason = last_error(errors.read().decode(errors="replace"))
                raise RuntimeFailure(
                    f"{self.name} does not start ({reason}); run "
                    f"`edgekron devices emulate {self._board.name} --rebuild`."
                )
        kept = {name: value for name, value in answer["facts"].items() if name not in _NOT_THE_BOARDS}
        facts = cast("MachineFacts", {**kept, **self._installation.facts(self._board)})
        return cast("DescribeAnswer", {**answer, "facts": facts, "state": {}})

    def close(self) -> None:
        """Removes the agent's file."""
        self._folder.cleanup()

    def _command(self, *words: str) -> list[str]:
        return [*self._installation.command(self._board), str(self._agent), *words]

    def _environment(self) -> dict[str, str]:
        return self._installation.environment(self._home)


class MachineDevice:
    """See ``Device``: a virtual machine that runs until ``close``, driven as a board over SSH."""

    unit = "second"

    def __init__(self, board: EmulatedBoard, files: MachineFiles, name: str = "") -> None:
        self.name = name or f"emulated:{board.name}:ssh"
        #: The running machine.
        self.machine = Machine(files, board)
        try:
            target = Target(f"ssh:{self.machine.host}", ssh_config=str(self.machine.config))
            self._ssh = open_ssh(self.name, self.machine.host, target)
        except BaseException:
            self.machine.close()
            raise

    def put(self, file: Path) -> str:
        """See ``Device.put``."""
        return self._ssh.put(file)

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """See ``Device.run_agent``."""
        return self._ssh.run_agent(request, listener)

    def facts(self) -> DescribeAnswer:
        """See ``Device.facts``."""
        return self._ssh.facts()

    def close(self) -> None:
        """Stops the machine."""
        try:
            self._ssh.close()
        finally:
            self.machine.close()
