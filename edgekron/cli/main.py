"""``edgekron``: finds the command, runs it, and turns errors that are the user's to mend into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

#: Each command is the module of its name in this package, with ``add_arguments(parser)`` and ``run(arguments) -> int``.
COMMANDS = {
    "models": "bundled networks: parameters, MACs, accuracy",
    "inspect": "a model's layers, their cost, and what can be factorized",
    "compress": "factorize a trained model within a ratio",
    "export": "write a model as standard ONNX or TFLite",
    "verify": "compare two versions of a network, end to end and by layer",
    "evaluate": "top-1 accuracy of exported files, in the runtime that runs them",
    "bench": "latency and memory of exported files, side by side",
    "report": "an HTML page about a compressed folder",
    "demo": "the whole way on a bundled network",
}

USAGE_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Imports a command's module, and with it its options, when that command is parsed and not before."""

    command: str | None = None

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        if self.command is not None and not self.get_default("run"):
            module = importlib.import_module(f"edgekron.cli.{self.command}")
            module.add_arguments(self)
            self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code: 0 done, 1 the command's own no, 2 bad input, 130 interrupted."""
    parser = _Parser(prog="edgekron", description="Factorized convolutional networks as plain ONNX and TFLite files.")
    parser.add_argument("--version", action="version", version=f"edgekron {version('edgekron')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        command.command = name
        command.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
        command.add_argument("--debug", action="store_true", help="show tracebacks and what other libraries log")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if arguments.debug else logging.ERROR, format="%(name)s: %(message)s")
    try:
        code: int = arguments.run(arguments)
    except ValueError as error:
        # UserError, DataError, StructureError and RuntimeFailure are sentences for the user; any other ValueError is a bug.
        if arguments.debug or not _is_ours(error):
            raise
        sys.stderr.write(f"edgekron: error: {error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("edgekron: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        sys.stderr.close()
        return 0
    return code


def _is_ours(error: ValueError) -> bool:
    return type(error).__module__.split(".")[0] == "edgekron"


if __name__ == "__main__":
    sys.exit(main())
