"""The harness on made-up numbers: variants to rows, rows to a record, and the record to a page and a picture."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.common import table, variants
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.kept import kept
from benchmarks.common.picture import picture
from benchmarks.common.record import Place, day
from benchmarks.common.variants import Variant, compare
from edgekron.errors import UserError
from edgekron.runtimes import Interval
from edgekron.runtimes.statistics import summary


@pytest.fixture
def timed(monkeypatch):
    """Files of made-up contents that are timed and scored by their size; gives what was asked of the runtime."""
    asked = []

    def bench(files, measuring):
        sizes = [file.stat().st_size for file in files]
        asked.append(([file.suffix for file in files], measuring.threads, measuring.seconds))
        speedups = [Interval(sizes[0] / size, 0.9, 1.1, 0.95) for size in sizes[1:]]
        latencies = [SimpleNamespace(latency=summary([1e-6 * size])) for size in sizes]
        return SimpleNamespace(files=latencies, speedups=speedups, warnings=("busy",), environment={"cores": 2})

    monkeypatch.setattr(variants, "bench", bench)
    monkeypatch.setattr(variants, "top1_of", lambda file, images: 90 + file.stat().st_size / images)
    return asked


def of_size(size, **row):
    return Variant(row, lambda path: path.write_bytes(b"x" * size))


def test_every_variant_is_measured_against_the_first(timed):
    dense, small = of_size(400, name="dense"), of_size(100, name="small")
    report = compare([dense, small], "tflite", seconds=3.0, images=100)
    assert timed == [([".tflite", ".tflite"], 1, 3.0)]
    assert (dense.row["bytes"], dense.row["top1"], dense.row["speedup"]) == (400, 94.0, None)
    assert (small.row["bytes"], small.row["top1"]) == (100, 91.0)
    assert small.row["speedup"] == {"value": 4.0, "low": 0.9, "high": 1.1, "level": 0.95}
    assert small.row["latency"]["median"] == pytest.approx(1e-4)
    assert list(report.warnings) == ["busy"]


def test_rows_of_two_runtimes_have_names_of_their_own(timed):
    small = of_size(100, name="small")
    for target in variants.RUNTIMES:
        compare([small], target, seconds=1.0, suffix=f"_{target}")
    names = {f"{name}_{target}" for name in ("bytes", "latency", "speedup") for target in ("onnx", "tflite")}
    assert small.row.keys() == {"name"} | names
    assert len(timed) == 2


def measure(arguments):
    found = [of_size(size, name=f"{size}") for size in (400, 100)]
    compare(found, "onnx", seconds=arguments.seconds, images=arguments.images)
    return {"date": "2026-01-02T03:04+00:00", "rows": [variant.row for variant in found]}


def page(record):
    rows = [[row["name"], f"{row['top1']:.1f}", table.interval(row["speedup"], "x")] for row in record["rows"]]
    lines = [f"`{record['command']}`, {day(record)}", "", *table.head(["size", "top-1", "as fast"])]
    return "\n".join([*lines, *map(table.row, rows), ""])


def draw(record, path):
    with picture(path, 2, 2) as figure:
        figure.subplots().plot([row["top1"] for row in record["rows"]])


EXPERIMENT = Experiment(
    "sizes", "Sizes.", "sizes-{model}", measure, lambda parser: add_options(parser, "images", "seconds"), page, draw
)


def test_a_record_gives_its_page_and_picture_again(timed, tmp_path, capsys):
    words = ["toy", "--images", "100", "--output", str(tmp_path)]
    assert EXPERIMENT.main(words) == 0
    place = Place("sizes-toy", tmp_path)
    record = json.loads(place.record.read_text())
    assert record["command"] == f"python -m benchmarks.sizes {' '.join(words)}"
    text, drawn = place.document("md").read_text(), place.document("svg").read_bytes()
    assert text.splitlines() == [
        f"`{record['command']}`, 2026-01-02",
        "",
        "| size | top-1 | as fast |",
        "|---|---|---|",
        "| 400 | 94.0 |  |",
        "| 100 | 91.0 | 4.00x (0.90 to 1.10) |",
    ]
    for ending in ("md", "svg"):
        place.document(ending).unlink()
    assert EXPERIMENT.main(["toy", "--table", "--output", str(tmp_path)]) == 0
    assert place.document("md").read_text() == text
    assert place.document("svg").read_bytes() == drawn
    assert json.loads(place.record.read_text()) == record
    assert len(timed) == 1
    assert str(place.document("svg")) in capsys.readouterr().out


def test_bad_input_and_failed_commands_write_nothing(tmp_path, capsys):
    def refuses(_):
        raise UserError("there is no trained network 'toy'.")

    def fails(_):
        raise subprocess.CalledProcessError(3, ["edgekron"], stderr="out of memory")

    words = ["toy", "--output", str(tmp_path)]
    assert replace(EXPERIMENT, measure=refuses).main(words) == 2
    assert replace(EXPERIMENT, measure=fails).main(words) == 1
    assert EXPERIMENT.main(["toy", "--table", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert all(words in said for words in ("no trained network", "out of memory", "there is no record"))
    assert not list(tmp_path.iterdir())


def test_what_a_record_has_is_not_measured_again(tmp_path):
    place = Place("sizes-toy", tmp_path)
    assert place.earlier("rows") == {}
    place.write({"when": "2026-01-02", "rows": {"one": 1}})
    assert place.earlier("rows") == {"one": 1}
    assert day(place.read()) == "2026-01-02"
    made = []
    for _ in range(2):
        assert kept(tmp_path / "row.json", lambda: made.append(1) or {"top1": 90.0}) == {"top1": 90.0}
    assert len(made) == 1
