"""The agent's command line: one file, given its work as words, answering in JSON.

The agent needs Python 3.9; the processes that run models need numpy and a runtime too. ``edgekron.runtimes.archive``
packs the agent into one file that is copied to a board; the local device runs that very file. The agent is called as
``python agent.pyz [--folder FOLDER] COMMAND ...`` and prints JSON objects, one a line. An object with ``step`` tells
how far the work is: done, total, text. The last object has ``ok``, and ``error`` (a sentence) if ``ok`` is false.

=========================  ==========================================================================================
describe                   facts, state, runtimes, disk, python, protocol
held NAME                  bytes of a file that are here, whole, path (NAME: the content's SHA-256 and the suffix)
receive NAME OFFSET SIZE   takes the rest of a file from standard input
remove NAME ...            removes files
run                        carries out a request read from standard input; ends when standard input closes
start ID                   carries out a request as a job: a process that needs neither this one nor the connection
wait ID SEEN               prints the messages of a job, from message SEEN on, and follows the job to its end
drop ID                    ends a job that still runs, and removes its files
clean                      removes all files that the agent keeps on the device, the agent's own too
count REQUEST              runs a model between marks for an instruction counter (``edgekron.runtimes.agent.marks``)
work, join, limit          a worker (``edgekron.runtimes.agent.worker``), and one under a limit of memory
=========================  ==========================================================================================

The requests are those of ``edgekron.runtimes.agent.requests``.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import environment, marks, worker
from .errors import RuntimeFailure
from .store import Store, default_folder, follow, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .messages import DescribeAnswer, HeldAnswer, Message, ReceiveAnswer, StartAnswer

#: Distributions that run model files, and what they need.
RUNTIMES = ("onnxruntime", "ai-edge-litert", "tflite-runtime", "tflite-micro", "numpy")

_KILL_PATIENCE = 2.0


def main(words: list[str] | None = None) -> None:
    """Carries out one command; the exit code is 0 where the last line says ``ok``, else 1."""
    words = sys.argv[1:] if words is None else words
    folder = default_folder()
    if words[:1] == ["--folder"]:
        folder, words = Path(words[1]).expanduser(), words[2:]
    command, arguments = " ".join(words[:1]), words[1:]
    try:
        if command == "work":
            worker.main()
        elif command == "count":
            _print({"ok": True, **marks.run_marked(json.loads(arguments[0]))})
        elif command in ("join", "limit"):
            _caged(command, arguments[0], arguments[1:])
        else:
            answer = _known(words)(Store(folder), *arguments)
            if answer is not None:
                _print({"ok": True, **answer})
    except RuntimeFailure as error:
        _print({"ok": False, "error": str(error)})
        sys.exit(1)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more; the interpreter would complain while flushing at exit


def _known(words: list[str]) -> Callable[..., Mapping[str, object] | None]:
    """The function of a command that is given with as many words as it takes."""
    command, *arguments = words or [""]
    try:
        inspect.signature(_COMMANDS[command]).bind(None, *arguments)
    except (KeyError, TypeError):
        raise RuntimeFailure(f"{' '.join(words)!r} is no command of the agent; copy it to the device again.") from None
    return _COMMANDS[command]


def _describe(store: Store) -> DescribeAnswer:
    usage = shutil.disk_usage(store.folder)
    return {
        "facts": environment.describe(),
        "state": environment.state(),
        "runtimes": {name: _version(name) for name in RUNTIMES},
        "disk": {"folder": str(store.folder), "free": usage.free},
        "python": platform.python_version(),
        "protocol": worker.PROTOCOL,
    }


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _held(store: Store, name: str) -> HeldAnswer:
    count, whole = store.held(name)
    return {"bytes": count, "whole": whole, "path": str(store.file(name))}


def _receive(store: Store, name: str, offset: str, size: str) -> ReceiveAnswer:
    store.receive(name, int(offset), int(size), sys.stdin.buffer)
    return {"path": str(store.file(name))}


def _remove(store: Store, *names: str) -> Message:
    store.remove(list(names))
    return {}


def _clean(store: Store) -> Message:
    store.clean()
    return {}


def _run(store: Store) -> None:
    # Not needed by the small commands, and slow to start on a board.
    from .requests import carry_out

    request = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_input, daemon=True).start()
    carry_out(store, request, _print)


def _end_with_input() -> None:
    # Not by sys.stdin: its lock would be held when the interpreter wants to end.
    while os.read(0, 1 << 16):
        pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_KILL_PATIENCE)
    os._exit(1)  # the workers end with this process


def _leave(_number: int, _frame: object) -> None:
    """Ends the work in order: workers, control groups and the lock are given back on the way out."""
    raise SystemExit(1)


def _start(store: Store, identity: str) -> StartAnswer:
    folder = store.job(identity)
    if (folder / "messages").exists():
        return {"job": identity}  # asked twice, because the first answer was lost
    store.tidy()
    with said(folder):
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / "request.json").write_text(sys.stdin.readline())
        with (folder / "log").open("wb") as log:
            command = [sys.executable, sys.argv[0], "--folder", str(store.folder), "job", identity]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # What a worker that is killed leaves behind goes with the job.
                env={**os.environ, "TMPDIR": str(folder)},
            )
    while not (folder / "messages").exists():
        if process.poll() is not None:
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeFailure(f"the measurement cannot be started on the device ({' '.join(last)}).")
        time.sleep(0.01)
    return {"job": identity}


def _job(store: Store, identity: str) -> None:
    from .requests import carry_out

    signal.signal(signal.SIGTERM, _leave)
    folder = store.job(identity)
    with (folder / "alive").open("a") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        if (folder / "messages").exists():
            return  # started twice, because the first answer was lost
        alive.write(str(os.getpid()))
        alive.flush()
        with (folder / "messages").open("a", encoding="utf-8") as messages:

            def say(message: Message) -> None:
                messages.write(json.dumps(message) + "\n")
                messages.flush()

            carry_out(store, json.loads((folder / "request.json").read_text()), say)


def _wait(store: Store, identity: str, seen: str) -> None:
    threading.Thread(target=_end_with_input, daemon=True).start()
    for message in follow(store, identity, int(seen)):
        _print(message)


def _drop(store: Store, identity: str) -> Message:
    process = store.running(identity)
    if process is not None:
        deadline = time.monotonic() + _KILL_PATIENCE
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGTERM)
            while store.running(identity) and time.monotonic() < deadline:
                time.sleep(0.02)
            if store.running(identity):
                os.killpg(process, signal.SIGKILL)
    shutil.rmtree(store.job(identity), ignore_errors=True)
    return {}


def _caged(how: str, where: str, command: list[str]) -> None:
    """Becomes ``command`` under a limit of memory: the program begins anew, so nothing of it escapes the count."""
    if how == "join":
        (Path(where) / "cgroup.procs").write_text(str(os.getpid()))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (int(where), int(where)))
    os.execv(command[0], command)


def _print(message: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


_COMMANDS: dict[str, Callable[..., Mapping[str, object] | None]] = {
    "describe": _describe,
    "held": _held,
    "receive": _receive,
    "remove": _remove,
    "clean": _clean,
    "run": _run,
    "start": _start,
    "job": _job,
    "wait": _wait,
    "drop": _drop,
}

if __name__ == "__main__":
    main()
