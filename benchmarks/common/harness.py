"""Runs an experiment: its options, its record, and the page and the picture that are made of the record alone.

    EXPERIMENT = Experiment("families", __doc__, "families-{model}", measure, options, table, draw)

    if __name__ == "__main__":
        sys.exit(EXPERIMENT.main())

``measure`` gives the record, which says everything that ``table`` and ``draw`` need: ``--table`` makes both again of a
record that is there, old ones included.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekron.errors import DataError, UserError
from edgekron.files import write_file

from .record import ROOT, Place, Record

#: Options that several experiments have: kind, default, and help.
SHARED: dict[str, dict[str, Any]] = {
    "--calibration": {"type": int, "default": 1024, "help": "calibration images"},
    "--epochs": {"type": int, "default": 5, "help": "epochs of training"},
    "--images": {"type": int, "default": 10_000, "help": "test images"},
    "--rate": {"type": float, "default": 0.02, "help": "highest learning rate"},
    "--ratio": {"type": float, "default": 2.0, "metavar": "R", "help": "R times fewer MACs"},
    "--runs": {"type": Path, "help": "where finished work is kept"},
    "--seconds": {"type": float, "default": 2.0, "help": "timed seconds a file"},
    "--train": {"type": int, "default": 60_000, "help": "training images"},
}


def add_options(parser: argparse.ArgumentParser, *names: str, model: bool = True, **defaults: object) -> None:
    """Adds the options of ``SHARED`` that are named, with other defaults where some are given, and the network."""
    if model:
        parser.add_argument("model", help="a bundled trained network, such as sixconv")
    for name in names:
        option = SHARED[f"--{name}"]
        given = {
            "default": defaults.get(name, option.get("default")),
            "help": f"{option['help']} (default: %(default)s)",
        }
        parser.add_argument(f"--{name}", **option | given)


@dataclass(frozen=True)
class Experiment:
    """One script: ``python -m benchmarks.NAME``.

    ``stem`` names the record and its documents; options stand in it in braces. ``about`` is the script's docstring.
    Of ``table`` (a page in Markdown) and ``draw`` (a picture, written to a path) there may be none.
    """

    name: str
    about: str | None
    stem: str
    measure: Callable[[argparse.Namespace], Record]
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    table: Callable[[Record], str] | None = None
    draw: Callable[[Record, Path], None] | None = None

    def main(self, words: Sequence[str] | None = None) -> int:
        """Measures and writes. Gives the exit code: 2 for bad input, 1 when a command fails."""
        given = sys.argv[1:] if words is None else list(words)
        arguments = self.parser().parse_args(given)
        place = self.place(arguments)
        try:
            if arguments.table:
                record = place.read()
            else:
                record = self.measure(arguments)
                record["command"] = shlex.join(["python", "-m", f"benchmarks.{self.name}", *given])
                place.write(record)
        except (UserError, DataError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{error}\n{error.stderr}\n")
            return 1
        self.document(record, place)
        return 0

    def parser(self) -> argparse.ArgumentParser:
        """The script's own options, ``--table`` and ``--output``."""
        parser = parser_of(self.name, self.about)
        self.options(parser)
        parser.add_argument("--table", action="store_true", help="only write the documents of the record that is there")
        parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
        return parser

    def place(self, arguments: argparse.Namespace) -> Place:
        """Where the record and its documents lie."""
        return Place(self.stem.format(**vars(arguments)), arguments.output)

    def document(self, record: Record, place: Place) -> None:
        """Writes the page and the picture, and says where everything is."""
        written = [place.record]
        if self.table is not None:
            written.append(place.document("md"))
            write_file(written[-1], self.table(record), force=True)
            print(self.table(record))
        if self.draw is not None:
            written.append(place.document("svg"))
            self.draw(record, written[-1])
        print(*written, sep="\n")


def parser_of(name: str, about: str | None) -> argparse.ArgumentParser:
    """A parser for the script ``name`` that explains it by the first line of its docstring."""
    return argparse.ArgumentParser(f"python -m benchmarks.{name}", description=(about or "").splitlines()[0])
