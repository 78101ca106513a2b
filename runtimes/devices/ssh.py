"""``ssh:user@host[:port]``: a board that the user's own OpenSSH client reaches.

Keys, agents, jump hosts and aliases come from the user's configuration. Nothing is ever asked: a key must open without
a question, and the host's key must be known. All commands share one connection.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.schema import plain

from .board import Board, LostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .device import Target

#: user@host:port; a host may be an address, one of version 6 in brackets. Nothing may look like an option.
_PLACE = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)

#: Seconds to connect, and the keep-alive that notices a dead connection in a quarter of a minute.
_OPTIONS = (
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "ForwardAgent=no"),
    *("-o", "ForwardX11=no"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "LogLevel=ERROR"),
)
_OWN_FAILURE = 255
_PATIENCE = 30.0

#: What OpenSSH says, and what the user can do about it. The first that fits counts.
_REASONS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "has another key than it had; find out why, then ssh-keygen -R {host}"),
    (r"Host key verification failed|key is not known|No .* host key is known",
     "has a host key that is not known here; look at it once with: ssh {words}"),
    (r"Permission denied|Too many authentication failures|UNPROTECTED PRIVATE KEY",
     "refuses every key that opens without a question; try: ssh {words}"),
    (r"Could not resolve hostname", "is no known host; check its name"),
    (r"Bad configuration option|terminating, \d+ bad", "cannot be reached with this OpenSSH configuration; mend it"),
)  # fmt: skip


def open_ssh(name: str, place: str, target: Target) -> Board:
    """A connected board. Raises ``RuntimeFailure`` that says why the board cannot be reached and what to do."""
    found = _PLACE.fullmatch(place)
    if not found:
        raise RuntimeFailure(f"{place!r} is no place for SSH; write ssh:user@host or ssh:user@host:port.")
    host = found["host"] or found["six"]
    options = ["-l", found["user"]] if found["user"] else []
    options += ["-p", found["port"]] if found["port"] else []
    configuration = ["-F", target.ssh_config] if target.ssh_config else []
    if shutil.which("ssh") is None:
        raise RuntimeFailure(f"{name} needs the OpenSSH client; install it (sudo apt install openssh-client).")
    return Board(name, SshTransport(name, host, [*configuration, *options]), target)


class SshTransport:
    """One master connection in the background; every command is a session of it."""

    def __init__(self, name: str, host: str, options: Sequence[str]) -> None:
        self._name = name
        self._host = host
        self._options = list(options)
        # The path of a socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ek-"))
        self._master: subprocess.Popen[bytes] | None = None
        self._connected = False

    def command(self, words: Sequence[str]) -> list[str]:
        """See ``Transport.command``: the remote shell gets every word quoted."""
        return [*self._ssh("-o", "ControlMaster=no", "-T"), "--", self._host, shlex.join(words)]

    def connect(self) -> None:
        """See ``Transport.connect``."""
        self._end_master()
        with tempfile.TemporaryFile() as errors:
            self._master = subprocess.Popen(
                # It reads from here for ever, so that it ends with this program, however that ends.
                [*self._ssh("-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-T"), "--", self._host, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            deadline = time.monotonic() + _PATIENCE
            while not self._alive():
                code = self._master.poll()
                if code is not None or time.monotonic() > deadline:
                    self._end_master()
                    errors.seek(0)
                    failure = self.explain(_OWN_FAILURE, errors.read().decode(errors="replace").strip())
                    if not self._connected:
                        self._remove_folder()
                    raise failure
                time.sleep(0.02)
        self._connected = True

    def explain(self, code: int, said: str) -> RuntimeFailure:
        """See ``Transport.explain``."""
        last = plain((said.splitlines() or [""])[-1], 200)
        if code != _OWN_FAILURE and code >= 0:
            return RuntimeFailure(f"{self._name}: the agent ended there without an answer (exit code {code}: {last}).")
        words = shlex.join([*self._options, self._host])
        for pattern, meaning in _REASONS:
            # A machine that has lost its network cannot look up a name either.
            if re.search(pattern, said) and not (self._connected and "resolve" in pattern):
                return RuntimeFailure(f"{self._name} {meaning.format(host=self._host, words=words)}.")
        if self._connected:
            return LostError(f"the connection to {self._name} was lost ({last}); look whether the board is up.")
        return RuntimeFailure(
            f"{self._name} cannot be reached ({last or 'no answer'}); look whether it is up and runs an SSH server."
        )

    def close(self) -> None:
        """See ``Transport.close``."""
        self._end_master()
        self._remove_folder()

    def _ssh(self, *options: str) -> list[str]:
        return ["ssh", *self._options, *_OPTIONS, "-o", f"ControlPath={self._folder}/c", *options]

    def _alive(self) -> bool:
        command = [*self._ssh("-O", "check"), "--", self._host]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _end_master(self) -> None:
        if self._master:
            cast("IO[bytes]", self._master.stdin).close()
            self._master.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._master.wait(2)
            self._master.kill()
            self._master.wait()
            self._master = None
        (self._folder / "c").unlink(missing_ok=True)

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
