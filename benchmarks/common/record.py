"""The record of a benchmark: its file, and the date, versions and machine in every record."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekron.errors import UserError
from edgekron.files import write_file

ROOT = Path(__file__).resolve().parents[2]

Record = dict[str, Any]
#: What a record says of one network, file or layer.
Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the benchmark ``stem`` writes below ``folder``: a record, and the documents that are made of it."""

    stem: str
    folder: Path = ROOT

    @property
    def record(self) -> Path:
        """The file of the record."""
        return self.folder / "benchmarks" / "results" / f"{self.stem}.json"

    def document(self, ending: str) -> Path:
        """The file of a page (``md``) or a picture (``svg``)."""
        return self.folder / "docs" / "measured" / f"{self.stem}.{ending}"

    def read(self) -> Record:
        """The record. Raises ``UserError`` where there is none."""
        if not self.record.exists():
            raise UserError(f"there is no record {self.record}; run this without --table first.")
        found: Record = json.loads(self.record.read_text())
        return found

    def earlier(self, key: str) -> Record:
        """What the record that is there has under ``key``; nothing where there is no record."""
        found: Record = self.read()[key] if self.record.exists() else {}
        return found

    def write(self, record: Record) -> None:
        """Keeps ``record`` in place of the one that was there."""
        write_file(self.record, json.dumps(record, indent=1) + "\n", force=True)


def made(*packages: str) -> Record:
    """When a record was made, and with which versions of EdgeKron and other ``packages``."""
    versions = {package: metadata.version(package) for package in ("edgekron", *packages)}
    return {"date": datetime.now(UTC).isoformat(timespec="minutes"), "versions": versions}


def machine(*, load: bool = False) -> str:
    """The processor in a few words; with ``load``, also how busy it is with other things."""
    words = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{words}, load {os.getloadavg()[0]:.1f}" if load else words


def day(record: Record) -> str:
    """The day on which a record was made, as in 2026-11-27; the oldest records call it ``when``."""
    return str(record.get("date") or record["when"])[:10]


def digest_of(key: Record) -> str:
    """Twelve hexadecimal digits that tell folders of finished and unfinished work apart."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
