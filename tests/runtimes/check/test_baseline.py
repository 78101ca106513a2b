"""A baseline comes back as it was written, and is found on its own machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.check.baseline import Baseline, BaselineEntry, read_baseline
from edgekron.runtimes.check.fingerprint import fingerprint, identity

from .conftest import FACTS

HERE = identity(FACTS)
THERE = identity({**FACTS, "processor": "Abacus 4", "governor": {"cpu0": "ondemand"}})
ENTRY = BaselineEntry("2031-02-03", 1, "ab" * 32, "abacus 3.0", (1e-3, 1.1e-3), ())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    counted = BaselineEntry("2031-02-04", 2, "cd" * 32, "abacus 3.0", (), (12e6, 12e6))
    baseline = (
        Baseline(path, {})
        .with_entries(HERE, "local", {"net": ENTRY})
        .with_entries(THERE, "emulated:pi4", {"b": counted})
    )
    path.write_text(baseline.to_text())
    again = read_baseline(path)
    assert again == baseline
    assert again.find(HERE, "local", "net", 1) == (ENTRY, "")
    assert again.find(THERE, "emulated:pi4", "b", 2) == (counted, "")
    newer = again.with_entries(HERE, "local", {"more": counted})
    assert set(newer.machines[fingerprint(HERE)].devices["local"]) == {"net", "more"}


@pytest.mark.parametrize(
    ("machine", "device", "model", "threads", "words"),
    [
        (
            THERE,
            "local",
            "net",
            1,
            "another machine (governor ondemand, not unknown; processor Abacus 4, not Abacus 3)",
        ),
        (HERE, "local", "other", 1, "has no other on local"),
        (HERE, "ssh:pi", "net", 1, "has no net on ssh:pi"),
        (HERE, "local", "net", 4, "with 1 threads, not 4"),
    ],
)
def test_nothing_is_found_elsewhere(machine: dict[str, Any], device: str, model: str, threads: int, words: str) -> None:
    entry, why = (
        Baseline(Path("b"), {}).with_entries(HERE, "local", {"net": ENTRY}).find(machine, device, model, threads)
    )
    assert entry is None
    assert words in why
    assert "--write-baseline" in why


def test_the_fingerprint_is_of_the_machine_and_not_of_the_day() -> None:
    assert identity({**FACTS, "kernel": "6.2", "python": "3.12", "memory": FACTS["memory"] + 2**20}) == HERE
    assert fingerprint(identity({**FACTS, "memory": 2**33})) != fingerprint(HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 7},
        {"machines": []},
        {"machines": {"x": {}}},
        {"machines": {"x": {"identity": {}, "devices": {"local": {"net": {"date": "x"}}}}}},
        {
            "machines": {
                "x": {
                    "identity": {},
                    "devices": {
                        "local": {
                            "net": {
                                "date": "",
                                "threads": 1,
                                "sha256": "",
                                "runtime": "",
                                "latency": [-1],
                                "instructions": [],
                            }
                        }
                    },
                }
            }
        },
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        read_baseline(path)
    path.write_text(json.dumps({"format": 1, "machines": {}} | change))
    with pytest.raises(RuntimeFailure, match=r"baselines\.json .*(anew|--write-baseline)"):
        read_baseline(path)
    path.write_text("no json")
    with pytest.raises(RuntimeFailure, match="no baseline file"):
        read_baseline(path)
