"""The committed pages: each is what its script makes of the committed record, is in the index, and links to files."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.common.record import ROOT, Place
from benchmarks.sweep import report as sweep
from benchmarks.transfer import report as transfer
from benchmarks.transfer import rows as transfer_rows

MEASURED = ROOT / "docs" / "measured"
INDEX = (ROOT / "docs" / "README.md").read_text()
#: The script of each record that has a page or a picture of its own, by the record's name.
SCRIPTS = {
    "activations": "activations",
    "curve-sixconv": "curve",
    "detector": "detector",
    "edp-resnet56": "edp",
    "families-resnet20": "families",
    "families-resnet32": "families",
    "families-resnet56": "families",
    "families-sixconv": "families",
    "layer-training": "layer_training",
    "pruning-mobilenetv2-half": "pruning",
    "pruning-resnet56": "pruning",
    "quantized": "quantized",
    "similarity": "similarity",
    "solver-resnet32": "solver",
    "solver-sixconv": "solver",
    "tensorization": "tensorization",
    "tuned": "tuned",
}
#: Records whose pages are not made by an ``Experiment``.
OTHERS = ("sweep", "transfer-resnet32", "transfer-sixconv")
#: What people write.
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(("stem", "script"), SCRIPTS.items())
def test_a_stored_record_gives_the_committed_page(stem, script, tmp_path, capsys):
    record = Place(stem).read()
    experiment = importlib.import_module(f"benchmarks.{script}").EXPERIMENT
    made = Place(stem, tmp_path)
    experiment.document(record, made)
    for ending in ("md", "svg"):
        committed = Place(stem).document(ending)
        assert committed.exists() == made.document(ending).exists()
        if committed.exists():
            assert made.document(ending).read_bytes() == committed.read_bytes()
    assert str(made.record) in capsys.readouterr().out


@pytest.mark.parametrize("model", ["sixconv", "resnet32"])
def test_finished_steps_give_the_committed_page(model, tmp_path):
    stem = f"transfer-{model}"
    rows = transfer_rows.read(Place(stem).record.with_suffix(".jsonl"))
    transfer.write_report(model, rows, Place(f"{stem}-latency").read(), Place(stem, tmp_path))
    for ending in ("md", "svg"):
        assert Place(stem, tmp_path).document(ending).read_bytes() == Place(stem).document(ending).read_bytes()


def test_the_sweeps_record_gives_the_committed_page():
    assert sweep.table(Place("sweep").read()) == Place("sweep").document("md").read_text()


def test_every_page_is_made_by_a_script():
    assert {path.stem for path in MEASURED.iterdir()} == {*SCRIPTS, *OTHERS}


@pytest.mark.parametrize("stem", [*SCRIPTS, *OTHERS])
def test_the_index_names_each_page_its_script_and_the_records_date(stem):
    (line,) = [line for line in INDEX.splitlines() if f"](measured/{stem}." in line]
    *_, script, date, _ = (cell.strip() for cell in line.split("|"))
    assert script == f"`{SCRIPTS.get(stem) or stem.split('-')[0]}`"
    lines = Place(stem).record.with_suffix(".jsonl")
    text = (lines if lines.exists() else Place(stem).record).read_text()
    recorded = re.search(r'"(?:date|when)": "([\d-]{10})', text)
    assert date == (recorded[1] if recorded else "not in the record")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / Path(target)).exists(), f"{page} links to {target}"


def test_the_index_names_every_page_that_people_write():
    pages = {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w.-]+\.md)\)", INDEX))
