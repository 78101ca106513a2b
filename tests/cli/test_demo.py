"""The demo and the report, as a user runs them. What depends on the machine's speed is not asserted."""

import json

import pytest

from edgekron.cli.main import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "-o", str(folder), "--seconds", "2"]) == 0
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_demo_reaches_its_numbers(demo, runtime):
    data = json.loads((demo / "demo.json").read_text())
    row = data[runtime]
    assert row["mac_ratio"] >= 2.5
    assert row["file_ratio"] >= 3.0
    assert row["top1_dense"] - row["top1_compressed"] <= 1.0
    assert 0 < row["latency_ratio"]["low"] <= row["latency_ratio"]["value"] <= row["latency_ratio"]["high"]
    assert row["dense"]["relative"] <= 1e-4
    assert row["compressed"]["relative"] <= 1e-4
    assert data["held"]
    assert data["images"] == 10_000


@pytest.mark.thorough
def test_demo_leaves_what_it_speaks_of(demo):
    data = json.loads((demo / "demo.json").read_text())
    for runtime in ("onnxruntime", "litert"):
        for version in ("dense", "compressed"):
            row = data[runtime][version]
            assert (demo / row["file"]).stat().st_size == row["bytes"]
    assert f"{data['onnxruntime']['top1_compressed']:.2f}" in (demo / "report.html").read_text()
    assert (demo / "compressed" / "plan.toml").is_file()
    assert all(seconds > 0 for layer in data["layers"] for seconds in layer["seconds"])


@pytest.mark.thorough
def test_demo_keeps_an_existing_folder(demo, capsys):
    assert main(["demo", "-o", str(demo)]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nothing"], "no trained network 'nothing'; it can show sixconv"),
        (["--model", "mobilenetv2"], "no trained network 'mobilenetv2'"),
        (["--seconds", "0"], "--seconds 0 must be above 0"),
        (["--ratio", "0.5"], "makes no sense"),
    ],
)
def test_demo_refuses(tmp_path, capsys, arguments, words):
    assert main(["demo", "-o", str(tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed") / "out"
    assert main(["compress", "sixconv", "--ratio", "3", "-o", str(folder)]) == 0
    return folder


def test_report_without_measurements(compressed, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["report", str(compressed), "-o", str(page), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    for runtime in ("onnxruntime", "litert"):
        assert data[runtime]["mac_ratio"] >= 3.0
        assert data[runtime]["latency_ratio"] is None
        assert data[runtime]["top1_dense"] is None
        assert data[runtime]["compressed"]["relative"] <= 1e-4
    assert f"{data['onnxruntime']['mac_ratio']:.2f}x" in page.read_text()


def test_report_refuses_another_network(compressed, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["report", str(compressed), "-o", str(page), "--original", "resnet20"]) == 2
    assert "resnet20 has other layers" in capsys.readouterr().err
    assert not page.exists()
