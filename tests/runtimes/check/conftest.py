"""A device that measures nothing: blocks are made up, with latencies, noise and disturbances as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekron.runtimes.check.blocks import MeasuredBlock, Run

FACTS = {"processor": "Abacus 3", "machine": "wood", "cores": 4, "memory": 2**32, "kernel": "6.1"}


@dataclass
class Machine:
    """Stands for a device and for ``measure_block``.

    ``latency`` is by file name in seconds, ``scatter`` the relative deviation from block to block, ``shared`` that of
    what hits all files of a block alike.
    """

    name: str = "local"
    unit: str = "second"
    latency: dict[str, float] = field(default_factory=dict)
    scatter: float = 0.001
    shared: float = 0.0
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    memory: dict[str, int | None] = field(
        default_factory=lambda: {
            "file": 9,
            "runtime": 50_000_000,
            "loaded": 60_000_000,
            "peak": 70_000_000,
            "steady": 65_000_000,
        }
    )
    runtime: dict[str, Any] = field(default_factory=lambda: {"runtime": "abacus", "version": "3.0"})
    instructions: dict[str, float] = field(default_factory=dict)
    arena: dict[str, int | None] = field(default_factory=dict)
    spoilt: Callable[[int], tuple[str, ...]] = lambda _index: ()
    busy: str | None = None
    seed: int = 0
    blocks: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def measure(
        self, files: Sequence[Path], device: object, threads: int, index: int, arena: bool = False
    ) -> MeasuredBlock:
        assert device is self
        common = self.random.lognormal(sigma=self.shared) if self.shared else 1.0
        runs = tuple(self._run(file, common, arena) for file in files)
        self.blocks += 1
        return MeasuredBlock(runs, self.facts, self.spoilt(self.blocks - 1), (), self.busy)

    def _run(self, file: Path, common: float, arena: bool) -> Run:
        instructions = self.instructions.get(file.name)
        rounds: tuple[tuple[float, ...], ...] = ()
        if instructions is None:
            level = common * self.latency.get(file.name, 1e-3) * self.random.lognormal(sigma=self.scatter)
            rounds = tuple(tuple(level * (1 + 0.001 * self.random.exponential(size=12))) for _ in range(4))
        return Run(rounds, self.memory, self.runtime, self.arena if arena else {}, instructions)


@pytest.fixture
def budget_file(tmp_path: Path) -> Callable[..., Path]:
    """``budget_file(limits, more="")``: a budget for model.onnx with its dense.onnx, both of 1,000 bytes."""
    for name in ("model.onnx", "dense.onnx", "model.tflite"):
        (tmp_path / name).write_bytes(b"\0" * 1000)

    def write(limits: str, more: str = "", file: str = "model.onnx") -> Path:
        path = tmp_path / "budget.toml"
        path.write_text(
            f'format = 1\nbaseline = "baselines.json"\n[measure]\ntime = "2 s"\n'
            f'[models.net]\nfile = "{file}"\nreference = "dense.onnx"\ndata = "digits"\n'
            f"[models.net.limits]\n{limits}\n{more}\n",
            encoding="utf-8",
        )
        return path

    return write
