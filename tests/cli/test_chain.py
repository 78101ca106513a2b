"""A chain of versions on the command line: what it prints, what it judges and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

Run = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.filterwarnings("ignore")


def network() -> nn.Module:
    """Called by name from the command line; the same weights every time."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)
    return nn.Sequential(*layers).eval()


class Functional(nn.Module):
    """A convolution by a parameter of the network itself, not by a module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernel, self.last = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(functional.conv2d(x, self.kernel)).mean((2, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network compressed, in files of all kinds, and images for it."""
    from edgekron.cli.main import main

    path = tmp_path_factory.mktemp("chain")
    random = np.random.default_rng(0)
    np.savez(path / "images.npz", inputs=random.standard_normal((12, 3, 10, 10)).astype(np.float32))
    program = torch.export.export(network(), (torch.zeros(2, 3, 10, 10),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.onnx.export(program, dynamo=True, verbose=False).save(path / "net.onnx")  # type: ignore[union-attr]
    small, data = path / "small", ("--data", path / "images.npz")
    for words in (
        ("compress", path / "net.onnx", "--ratio", 1.5, "-o", small),
        ("export", small, "--to", "onnx", "-o", path / "out.onnx"),
        ("export", small, "--to", "tflite", "-o", path / "out.tflite"),
        ("export", small, "--to", "tflite", "-o", path / "int8.tflite", "--dtype", "int8", *data),
    ):
        assert main([str(word) for word in words]) == 0
    return path


def chain(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / name for name in ("net.onnx", "small", "out.onnx", "out.tflite", "int8.tflite"))


def test_a_chain_of_files(folder: Path, run: Run) -> None:
    data = ("--data", folder / "images.npz")
    code, text, _ = run("verify", *chain(folder), *data, "--tolerance", 1e-5, "--json")
    said = json.loads(text)
    assert (code, said["passed"]) == (0, True)
    assert [version["kind"] for version in said["versions"]] == ["onnx", "hub", "hub", "onnx", "tflite", "tflite"]
    kinds = [step["kinds"] for step in said["steps"]]
    assert kinds == [["conversion"], ["decomposition"], ["conversion"], ["conversion"], ["quantization"]]
    assert [bound["measure"] for bound in said["bounds"]] == ["worst_relative"] * 3
    for step in said["steps"]:
        assert {part["layer"] for part in step["parts"]} >= {"2", "5"}, step["version"]
        assert len(step["since_reference"]) == 1
    assert said["conclusion"].startswith("Conversion moves the outputs by at most ")
    # The decomposition is far above what the last version may lose, the quantization is not.
    code, text, _ = run("verify", *chain(folder), *data, "--sqnr", 20)
    assert code == 1
    assert "int8.tflite from out.tflite, SQNR on the images" in text
    assert text.count("within 20") == 1
    assert "int8.tflite from net.onnx, SQNR on the images" in text
    assert text.count("BELOW 20") == 1


def test_a_pair_says_what_a_chain_says_and_more(folder: Path, run: Run) -> None:
    _, small, out, _, quantized = chain(folder)
    words = ("verify", small, out, "--data", folder / "images.npz")
    code, text, _ = run(*words, "--tolerance", 1e-4, "--json")
    said = json.loads(text)
    assert (code, said["passed"], said["precision"], said["notes"]) == (0, True, "float32", [])
    assert (said["reference"], said["candidate"], said["tolerance"]) == (str(small), str(out), 1e-4)
    assert said["bounds"] == {"sqnr_db": None, "agreement": None}
    assert 0 <= said["worst_relative"] <= 1e-4
    assert said["agreement"] == 100
    cases = ["random, batch 1", "random, batch 2", "random, batch 3", "zeros", "large (x100)", "impulse", "12 images"]
    assert [row["case"] for row in said["outputs"]] == cases
    assert {"2", "5"} <= {row["name"] for row in said["layers"]}
    (step,) = said["steps"]
    assert (step["kinds"], step["outputs"]) == (["conversion"], said["outputs"])
    assert {part["layer"] for part in step["parts"]} >= {"2", "5"}
    assert said["conclusion"].startswith("Conversion moves the outputs by ")
    code, text, _ = run(*words, "--tolerance", 1e-12)
    assert code == 1
    for line in ("Steps", "Outputs", "Layers, on 12 images", "Values that both know by name", "EXCEEDS 1e-12"):
        assert line in text
    # Bounds are for the one comparison, whatever it is: a chain refuses a tolerance here.
    code, text, _ = run("verify", small, quantized, "--tolerance", 1e-12)
    assert code == 1
    assert "conversion and quantization" in text
    assert "is judged by SQNR and agreement on real images; give --data" in text


def test_a_chain_of_modules(folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made = ("--input-shape", "3,10,10")
    model = f"{Path(__file__).stem}:network"
    assert run("compress", model, *made, "--ratio", 1.5, "-o", tmp_path / "small")[0] == 0
    assert run("export", tmp_path / "small", "--to", "onnx", "-o", tmp_path / "out.onnx")[0] == 0
    code, text, _ = run("verify", model, tmp_path / "small", tmp_path / "out.onnx", *made, "--tolerance", 1e-5)
    assert code == 0
    assert text.count("within 1e-05") == 2
    assert "small (torch) " in text
    assert "judged on real images: give --data" in text
    assert "% keep their class" not in text
    # The other way round, and without what lies between: said, and not told apart.
    code, text, _ = run("verify", tmp_path / "out.onnx", model, folder / "out.onnx", *made)
    assert code == 0
    assert "decomposition and conversion" in text
    assert "its error cannot be told apart" in text


def test_a_factorized_layer_that_is_no_module(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    model = f"{Path(__file__).stem}:Functional", "--input-shape", "3,10,10"
    small, out = tmp_path / "small", tmp_path / "out.onnx"
    assert run("compress", *model, "--ratio", 1.5, "-o", small)[0] == 0
    assert run("export", small, "--to", "onnx", "-o", out)[0] == 0
    code, text, _ = run("verify", model[0], small, out, *model[1:], "--json")
    said = json.loads(text)
    assert code == 0
    assert [step["kinds"] for step in said["steps"]] == [["conversion"], ["decomposition"], ["conversion"]]
    assert said["notes"][0].startswith("there is no torch version of small, so that its hub was compared: ")


def test_bad_chains_are_one_sentence(folder: Path, tmp_path: Path, run: Run) -> None:
    data = ("--data", folder / "images.npz")
    first, small, out, lite, quantized = chain(folder)
    other = tmp_path / "other.onnx"
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", 1, 28, 28]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), other)
    for words, said in (
        ((first, small, other), "net.onnx takes [3, 10, 10] and other.onnx [1, 28, 28]"),
        ((other, small, out), "has other layers than the reference"),
        ((first, small, tmp_path / "no.onnx"), "no.onnx does not exist"),
        ((first, out, quantized, "--tolerance", 1), "leave --tolerance out"),
        ((first, out, lite, "--sqnr", 20), "give --data"),
        ((first, small, out, "--data", "fashion-mnist:test"), "the model's input is [3, 10, 10]"),
    ):
        code, text, error = run("verify", *words)
        assert (code, text) == (2, ""), words
        assert said in error, (words, error)
        assert error.count("\n") == 1, error
    # Files of a compressed network alone: nothing says which of their values are within a layer.
    code, text, _ = run("verify", out, lite, quantized, *data)
    assert code == 0
    assert "give the model or the folder too" in text
