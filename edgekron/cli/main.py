"""``edgekron``: runs the command that the user names, and turns an error that the user can mend into one line, exit
code 2.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from edgekron.memory import give_back_large_blocks

#: Each command is the module of its name in this package, with ``add_arguments(parser)`` and ``run(arguments) -> int``.
COMMANDS = {
    "models": "bundled networks: parameters, MACs, accuracy",
    "inspect": "a model's layers, their cost, and what can be factorized",
    "compress": "factorize a trained model within a ratio",
    "finetune": "train a compressed folder, with a teacher or without",
    "tune": "the fastest form of each layer of a compressed folder, by measurement",
    "export": "write a model as standard ONNX or TFLite",
    "verify": "compare versions of a network, end to end and by layer, and say where the error enters",
    "evaluate": "top-1 accuracy of exported files, in the runtime that runs them",
    "bench": "latency and memory of exported files, side by side",
    "devices": "boards and phones that measure: name, check, emulate",
    "check": "whether exported files keep their budget; for CI",
    "report": "an HTML page about a compressed folder",
    "demo": "the whole way on a bundled network",
}

USAGE_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Imports the module of a command, which has the command's options, only when the command is parsed."""

    command: str | None = None

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        if self.command is not None and not self.get_default("run"):
            module = importlib.import_module(f"edgekron.cli.{self.command}")
            module.add_arguments(self)
            if "--json" not in self._option_string_actions:
                self.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
            self.add_argument("--debug", action="store_true", help="show tracebacks and what other libraries log")
            self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code: 0 done, 1 the command's own no, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="edgekron", description="Factorized convolutional networks as plain ONNX and TFLite files.")
    parser.add_argument("--version", action="version", version=f"edgekron {version('edgekron')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        commands.add_parser(name, help=about, description=about).command = name
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:
        near = difflib.get_close_matches(first, COMMANDS, 1)
        remedy = f"did you mean {near[0]}?" if near else "see edgekron --help."
        return _fail(f"there is no command {first!r}; {remedy}")
    arguments = parser.parse_args(words)
    # torch's threads would wait for each other in busy loops: where the machine has other work, a minute becomes ten.
    # It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    give_back_large_blocks()
    logging.basicConfig(level=logging.DEBUG if arguments.debug else logging.ERROR, format="%(name)s: %(message)s")
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("edgekron: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sentence = _sentence(error)
        if arguments.debug or sentence is None:
            raise
        return _fail(sentence)
    return code


def _fail(sentence: str) -> int:
    sys.stderr.write(f"edgekron: error: {sentence}\n")
    return USAGE_ERROR


def _sentence(error: Exception) -> str | None:
    """The sentence of an error that the user can mend; None for a bug, whose traceback is wanted."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".", maxsplit=1)[0]
        if package in ("", "edgekron"):
            return None
        return f"this command needs {package}, which is not installed: pip install 'edgekron[compress]'"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}; check the path." if error.filename and error.strerror else None
    # UserError, DataError, StructureError and RuntimeFailure are sentences; any other ValueError is a bug.
    return str(error) if type(error).__module__.split(".", maxsplit=1)[0] == "edgekron" else None


if __name__ == "__main__":
    sys.exit(main())
