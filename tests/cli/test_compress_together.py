"""``edgekron compress`` by two processes, as ``torchrun`` starts them: one result, written once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgekron.compression.artifact import HUB, PLAN, REPORT, read_hub
from edgekron.processes import Processes
from tests.networks import chain, smooth

IMAGES = 29


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """net.onnx, and images whose number is odd."""
    folder = tmp_path_factory.mktemp("together")
    ir.save(chain().model, folder / "net.onnx")
    np.savez(folder / "inputs.npz", inputs=smooth(IMAGES))
    return folder


def words(files: Path, out: Path, *more: object) -> list[str]:
    given = ("compress", files / "net.onnx", "--ratio", 2.5, "--data", files / "inputs.npz", "-o", out, *more)
    return [str(word) for word in given]


def test_two_processes_give_the_result_of_one(files, run, tmp_path):
    one, two = tmp_path / "one", tmp_path / "parent" / "two"
    method = ("--method", "channel-svd", "--json")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "edgekron.cli.main", *words(files, two, *method)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    code, said, error = run(*words(files, one, *method))
    assert code == 0, error
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    # The first alone prints, and the folder is all that is written.
    reports = [json.loads(said), json.loads(outputs[0][0])]
    assert not outputs[1][0]
    assert [path.name for path in two.parent.iterdir()] == ["two"]
    assert {path.name for path in two.iterdir()} == {HUB, PLAN, REPORT}
    assert json.loads((two / REPORT).read_text()) == reports[1]
    assert (two / PLAN).read_text() == (one / PLAN).read_text()
    assert reports[0]["totals"] == reports[1]["totals"]
    assert [report["calibration_images"] for report in reports] == [IMAGES, IMAGES]
    kernels = [
        {layer.name: layer.factorized.kernel() for layer in read_hub(folder).layers() if layer.factorized is not None}
        for folder in (one, two)
    ]
    assert len(kernels[0]) >= 2
    # Rounding of the moments, 1e-7, is magnified where the images say little: to 3e-5 here. The signs of factors are
    # free, so that it is their kernels that are compared.
    for name, wanted in kernels[0].items():
        assert np.linalg.norm(kernels[1][name] - wanted) <= 1e-3 * np.linalg.norm(wanted), name


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--images", 1), "2 processes cannot share 1 calibration images; give more images, or start fewer."),
        (("--method", "qsfm"), "channels are pruned by one process, not by 2; leave torchrun out."),
        (("--tune",), "without torchrun"),
    ],
)
def test_what_two_processes_cannot_do_is_one_sentence(files, run, tmp_path, monkeypatch, more, why):
    @contextmanager
    def two(*, gpus: bool) -> Iterator[Processes]:
        assert not gpus
        yield Processes(0, 2, torch.device("cpu"))

    monkeypatch.setattr("edgekron.processes.joined", two)
    code, said, error = run(*words(files, tmp_path / "out", *more))
    assert code == 2
    assert why in error
    assert error.count("\n") == 1
    assert not said
    assert not (tmp_path / "out").exists()
