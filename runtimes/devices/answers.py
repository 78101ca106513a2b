"""Reads the lines of an agent: steps go to the listener, the last line is the answer."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from edgekron.runtimes import schema
from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import Message

    from .device import Listener


def listen(lines: IO[bytes], what: str, device: str, listener: Listener | None = None) -> Message | None:
    """The answer to ``what``, checked; None where the lines end without one.

    Raises ``RuntimeFailure`` with the agent's own sentence, or for lines that no agent sends.
    """
    while line := lines.readline(schema.LONGEST_LINE + 1):
        message = schema.parse(line, device)
        if "ok" in message:
            return finished(message, what, device)
        schema.check(message.get("step"), "step", device)
        if listener:
            listener(message["step"])
    return None


def finished(message: Message, what: str, device: str) -> Message:
    """The answer in an agent's last line."""
    if message.pop("ok") is not True:
        raise RuntimeFailure(str(message.get("error", f"{device} failed without a word")))
    schema.check(message, what, device)
    return message
