"""``edgekron finetune``: a folder to a better folder of the same kind, killed or not, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tests.networks import CLASSES, factors, hub


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """teacher.onnx, images with and without labels, of another shape and of other classes."""
    folder = tmp_path_factory.mktemp("finetune")
    ir.save(hub().model, folder / "teacher.onnx")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 160)
    wave = np.tile([60, -60], 4)
    stripes = np.stack([np.tile(wave, (8, 1)), np.tile(wave, (8, 1)).T, np.outer(wave, wave) / 60])
    images = np.clip(128 + stripes[labels] + rng.normal(0, 20, (160, 8, 8)), 0, 255).astype(np.uint8)
    np.savez(folder / "data.npz", images=images, labels=labels)
    np.savez(folder / "unlabelled.npz", images=images)
    np.savez(folder / "large.npz", images=images.repeat(2, 1).repeat(2, 2), labels=labels)
    np.savez(folder / "classes.npz", images=images, labels=labels + 1)
    return folder


@pytest.fixture
def folder(files, run, tmp_path):
    """A compressed folder."""
    code, _, said = run("compress", files / "teacher.onnx", "--ratio", 1.5, "-o", tmp_path / "small")
    assert code == 0, said
    return tmp_path / "small"


def words(files: Path, folder: Path, out: Path, *more: object, data: str = "data.npz", epochs: int = 2) -> list[object]:
    return [
        "finetune", folder, "--data", files / data, "--epochs", epochs, "--batch", 8, "--held-out", 0.25,
        "--augment", "none", "-o", out, *more,
    ]  # fmt: skip


def test_a_folder_made_from_an_onnx_file_is_trained(files, folder, run, tmp_path):
    out = tmp_path / "out"
    code, said, error = run(*words(files, folder, out, "--lr", 0.1, epochs=12), "--json")
    assert code == 0, error
    facts = json.loads(said)
    top1 = facts["held_out_top1"]
    assert top1["after"] > top1["before"] + 20
    assert {p.name for p in out.iterdir()} == {
        "hub.onnx", "plan.toml", "report.json", "training.jsonl"
    }  # fmt: skip
    assert (out / "plan.toml").read_text() == (folder / "plan.toml").read_text()
    assert not Path(f"{out}.training").exists()
    log = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(1, 13))
    assert max(line["top1"] for line in log) == top1["after"]
    assert json.loads((out / "report.json").read_text())["training"][0]["held_out_top1"] == top1
    # The file that is written does what the log says, in the runtime.
    assert set(factors(out)) == set(factors(folder))
    data = np.load(files / "data.npz")
    x = ((data["images"] / np.float32(255) - np.float32(0.2860)) / np.float32(0.3530))[:, None].astype(np.float32)
    session = onnxruntime.InferenceSession(out / "hub.onnx", providers=["CPUExecutionProvider"])
    answers = session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1)
    assert 100 * float((answers == data["labels"]).mean()) > top1["before"] + 20
    code, _, error = run("export", out, "--to", "onnx", "-o", tmp_path / "out.onnx")
    assert code == 0, error


def test_without_labels_a_teacher_and_blocks_do(files, folder, run, tmp_path):
    more = ["--teacher", files / "teacher.onnx", "--correct", "--reconstruct", 60]
    code, said, error = run(*words(files, folder, tmp_path / "a", *more, data="unlabelled.npz", epochs=0))
    assert code == 0, error
    assert "block" in said
    assert "% after" in said
    code, said, error = run(*words(files, folder, tmp_path / "b", *more, data="unlabelled.npz"), "--json")
    assert code == 0, error
    facts = json.loads(said)
    assert facts["held_out_top1"] == {"before": None, "after": None}
    assert facts["held_out_loss"]["after"] < facts["held_out_loss"]["before"]


def test_rounds_reach_the_plan_gradually(files, folder, run, tmp_path):
    out = tmp_path / "out"
    code, said, error = run(*words(files, folder, out, "--teacher", files / "teacher.onnx", "--rounds", 2), "--json")
    assert code == 0, error
    assert len(json.loads(said)["rounds"]) == 2
    log = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert [(line["round"], line["epoch"]) for line in log] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    before, after = (factors(path) for path in (folder, out))
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}


def test_edp_learns_ranks_and_channels_of_a_network(files, run, tmp_path):
    out, model = tmp_path / "out", files / "teacher.onnx"
    how = ("--method", "edp", "--ratio", 2, "--lr", 0.1, "--json")
    code, said, error = run(*words(files, model, out, *how, epochs=12))
    assert code == 0, error
    facts = json.loads(said)
    assert facts["edp"] == {"macs": 2.0}
    assert facts["moved_by_removal"] < 1e-5
    assert facts["held_out_top1"]["after"] > facts["held_out_top1"]["before"] + 20
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["macs"]["ratio"] >= 2
    assert report["training"] == [facts]
    assert 'criterion = "edp"' in (out / "plan.toml").read_text()
    for kind in ("onnx", "tflite"):
        assert run("export", out, "--to", kind, "-o", tmp_path / f"out.{kind}")[0] == 0
        assert run("verify", out, tmp_path / f"out.{kind}", "--tolerance", 1e-4)[0] == 0
    # What it wrote is a folder like any other.
    assert run(*words(files, out, tmp_path / "on", epochs=1))[0] == 0


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--method", "edp"], "edp needs to know how small the network is to become"),
        (["--method", "edp", "--ratio", "1"], "give --ratio or --params above 1"),
        (["--method", "edp", "--ratio", "900"], "edp cannot reach 900 times fewer MACs"),
        (["--method", "edp", "--ratio", "2", "--patience", "2"], "edp is one stage of training"),
        (["--method", "edp", "--ratio", "2", "--rounds", "2", "--teacher", "MODEL"], "edp is one stage of training"),
        (["--ratio", "2"], "say what edp is to learn; give --method edp"),
    ],
)
def test_bad_input_to_edp_is_one_sentence(more, match, files, run, tmp_path):
    model = files / "teacher.onnx"
    given = [model if word == "MODEL" else word for word in more]
    code, _, error = run(*words(files, model, tmp_path / "out", *given))
    assert (code, match in error, error.count("\n")) == (2, True, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "more", "match"),
    [
        ("unlabelled.npz", [], "has no labels; give images with labels, or a --teacher"),
        ("large.npz", [], r"have shape [1, 16, 16] (C, H, W); the model's input is [1, 8, 8]"),
        ("classes.npz", [], "has labels up to 3, and the network of"),
        ("data.npz", ["--teacher", "resnet20"], "ResNet"),
        ("data.npz", ["--hints", "0"], "--hints needs a teacher"),
        ("data.npz", ["--teacher", "TEACHER", "--hints", "stem,99"], "cannot be aligned: 99 (the network has none)"),
        ("data.npz", ["--teacher", "TEACHER", "--transfer", "magic"], "there are default, lrdkt"),
        ("data.npz", ["--rounds", "2"], "--rounds compresses the teacher again and again"),
        ("data.npz", ["--augment", "crop,rain"], "there is no augmentation 'rain'"),
        ("data.npz", ["--lr", "-1"], "a learning rate of -1 trains nothing"),
        ("data.npz", ["--held-out", "2"], "--held-out 2 is a share"),
        ("data.npz", ["--epochs", "0"], "--epochs 0 trains nothing"),
        ("data.npz", ["--batch", "1000"], "fewer than a batch of 1000"),
    ],
)
def test_bad_input_is_one_sentence(data, more, match, files, folder, run, tmp_path):
    given = [str(files / "teacher.onnx") if word == "TEACHER" else word for word in more]
    code, _, error = run(*words(files, folder, tmp_path / "out", *given, data=data))
    assert code == 2
    assert error.count("\n") == 1
    if match != "ResNet":
        assert match in error
    else:
        assert "does not take images of shape [1, 8, 8]" in error or "gives [10]" in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_of_ours(files, run, tmp_path):
    code, _, error = run(*words(files, tmp_path, tmp_path / "out"))
    assert code == 2
    assert "is not a folder that 'edgekron compress' wrote" in error


@pytest.mark.thorough
def test_killed_and_run_again_it_gives_the_same(files, folder, run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ["--teacher", files / "teacher.onnx"]
    assert run(*words(files, folder, whole, *more, epochs=40))[0] == 0
    command = [str(word) for word in words(files, folder, killed, *more, epochs=40)]
    process = subprocess.Popen([sys.executable, "-m", "edgekron.cli.main", *command], env=dict(os.environ))
    state = Path(f"{killed}.training") / "state.safetensors"
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert run(*words(files, folder, killed, *more, epochs=40))[0] == 0
    one, two = (factors(path) for path in (whole, killed))
    assert all(np.array_equal(one[name], two[name]) for name in one)
