"""``edgekron compress`` prunes: by a ratio, by a similarity, with a structure, and again from its plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekron.planning.plan import CompressionPlan

Run = Callable[..., tuple[int, str, str]]
DATA = ("--data", "fashion-mnist:calibration", "--images", 16)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A network of a user's own, as MODEL and the options it needs."""
    (tmp_path / "usernet.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    conv = nn.Conv2d(1, 24, 3, 2, 1), nn.Conv2d(24, 32, 3, 2, 1), nn.Conv2d(32, 16, 1)\n"
        "    return nn.Sequential(conv[0], nn.ReLU(), conv[1], nn.ReLU(), conv[2], nn.ReLU(),\n"
        "                         nn.Flatten(), nn.Linear(16 * 49, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "usernet:build", "--input-shape", "1,28,28"


def test_pruned_networks_are_written_exported_and_pruned_again_from_the_plan(
    run: Run, model: tuple[str, ...], tmp_path: Path
) -> None:
    folder, again = tmp_path / "pruned", tmp_path / "again"
    code, out, _ = run("compress", *model, "-o", folder, "--method", "qsfm", "--ratio", 2, *DATA, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["totals"]["macs"]["ratio"] >= 2
    assert {row["method"] for row in report["layers"].values()} <= {"qsfm-ssim", "dense"}
    pruned = [row for row in report["layers"].values() if row["method"] == "qsfm-ssim"]
    assert pruned
    assert all(row["channels"]["outputs"][0] % 2 == 0 for row in pruned)
    for ending in ("onnx", "tflite"):
        file = tmp_path / f"pruned.{ending}"
        assert run("export", folder, "--to", ending, "-o", file)[0] == 0
        code, out, _ = run("verify", folder, file, "--json")
        assert code == 0
    assert run("inspect", folder)[0] == 0
    code, out, _ = run("compress", *model, "-o", again, "--plan", folder / "plan.toml", *DATA, "--json")
    assert code == 0
    assert json.loads(out)["totals"] == report["totals"]
    lines = CompressionPlan.read(again / "plan.toml").layers
    assert lines == CompressionPlan.read(folder / "plan.toml").layers
    assert any(line.channels for line in lines.values())
    code, out, err = run("compress", again, "-o", tmp_path / "more", "--method", "low-rank", "--ratio", 1.2, *DATA)
    assert code == 0, err


def test_a_table_says_how_many_channels_stay(run: Run, model: tuple[str, ...], tmp_path: Path) -> None:
    code, out, _ = run("compress", *model, "-o", tmp_path / "a", "--method", "l1+low-rank", "--ratio", 3)
    assert code == 0
    assert "channels" in out
    words = ("--method", "qsfm-psnr", "--similarity", 12, "--any-width", "--no-repair")
    code, out, _ = run("compress", *model, "-o", tmp_path / "b", *words, *DATA, "--json")
    assert code == 0
    assert not any("repair" in row for row in json.loads(out)["layers"].values())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--method", "qsfm", "--ratio", 2), "give some (--data)"),
        (("--method", "l1", "--ratio", 5000), "the best that this network can is"),
        (("--method", "l1", "--energy", 0.5), "is for structures"),
        (("--method", "l1", "--ratio", 2, "--similarity", 0.5), "not both"),
        (("--ratio", 2, "--any-width"), "says how to prune; give --method qsfm"),
        (("--ratio", 2, "--no-repair"), "says how to prune"),
        (("--method", "low-rank", "--similarity", 0.5), "says how to prune"),
        (("--method", "qsfm+magic", "--ratio", 2), "there is no method 'qsfm+magic'"),
        (("--method", "l1", "--ratio", 2, "--tune"), "edgekron tune"),
        (("--method", "l1"), "say how much to compress"),
        (("--method", "l1", "--similarity", 0.5), "l1 knows no similarity; give a ratio"),
    ],
)
def test_requests_that_make_no_sense(
    run: Run, model: tuple[str, ...], words: tuple[object, ...], why: str, tmp_path: Path
) -> None:
    code, _, err = run("compress", *model, "-o", tmp_path / "out", *words)
    assert code == 2
    assert why in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
