"""The instruction counter's classes, and the reports made of its counts; all without an emulator."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.devices.emulation.build import compile_counter
from edgekron.runtimes.devices.emulation.count import compare, inference_counts
from edgekron.runtimes.devices.emulation.installation import SOURCES
from edgekron.runtimes.devices.emulation.results import CLASSES, Agreement, FileCount, InstructionReport

#: Encodings from the architecture's manual, with the classes beyond "instructions".
ENCODINGS = {
    "nop": (0xD503201F, "branches"),
    "svc #0": (0xD4000001, "branches"),
    "b .+4": (0x14000001, "branches"),
    "ret": (0xD65F03C0, "branches"),
    "cbz x0, .": (0xB4000000, "branches"),
    "add x0, x1, x2": (0x8B020020, ""),
    "madd x0, x1, x2, x3": (0x9B020C20, ""),
    "ldr x0, [x1]": (0xF9400020, "loads"),
    "str x0, [x1]": (0xF9000020, "stores"),
    "ldrsw x0, [x1]": (0xB9800020, "loads"),
    "ldr q0, [x1]": (0x3DC00020, "loads"),
    "str q0, [x1]": (0x3D800020, "stores"),
    "ldr x0, label": (0x58000040, "loads"),
    "ldp q0, q1, [x2]": (0xAD400440, "loads"),
    "stp x0, x1, [sp, #-16]!": (0xA9BF07E0, "stores"),
    "ld1 {v0.4s}, [x1]": (0x4C407820, "loads"),
    "st1 {v0.4s}, [x1]": (0x4C007820, "stores"),
    "ldxr x0, [x1]": (0xC85F7C20, "loads"),
    "stxr w2, x0, [x1]": (0xC8027C20, "stores"),
    "ldadd x0, x1, [x2]": (0xF8200041, "loads"),
    "prfm pldl1keep, [x0]": (0xF9800000, "loads"),
    "fadd v0.4s, v1.4s, v2.4s": (0x4E22D420, "vector_float"),
    "fmul v0.4s, v1.4s, v2.4s": (0x6E22DC20, "vector_float"),
    "smull v0.8h, v1.8b, v2.8b": (0x0E22C020, "vector_float"),
    "mul v0.4s, v1.4s, v2.s[0]": (0x4F828020, "vector_float"),
    "fmla v0.4s, v1.4s, v2.4s": (0x4E22CC20, "vector_float float_macs"),
    "fmls v0.4s, v1.4s, v2.4s": (0x4EA2CC20, "vector_float float_macs"),
    "fmla v0.8h, v1.8h, v2.8h": (0x4E420C20, "vector_float float_macs"),
    "fmla v0.4s, v1.4s, v2.s[0]": (0x4F821020, "vector_float float_macs"),
    "fmla s0, s1, v2.s[0]": (0x5F821020, "vector_float float_macs"),
    "fmadd s0, s1, s2, s3": (0x1F020C20, "vector_float float_macs"),
    "mla v0.4s, v1.4s, v2.4s": (0x4EA29420, "vector_float integer_macs"),
    "mla v0.4s, v1.4s, v2.s[0]": (0x6F820020, "vector_float integer_macs"),
    "smlal v0.4s, v1.4h, v2.4h": (0x0E628020, "vector_float integer_macs"),
    "smlal v0.4s, v1.4h, v2.h[0]": (0x0F422020, "vector_float integer_macs"),
    "sqrdmlah v0.4s, v1.4s, v2.4s": (0x6E828420, "vector_float integer_macs"),
    "sdot v0.4s, v1.16b, v2.16b": (0x4E829420, "vector_float dot_products"),
    "udot v0.4s, v1.16b, v2.16b": (0x6E829420, "vector_float dot_products"),
    "sdot v0.4s, v1.16b, v2.4b[0]": (0x4F82E020, "vector_float dot_products"),
}


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """classified(word) -> the classes of an instruction, by the plugin's own code."""
    if not shutil.which("cc"):
        pytest.skip("cc, a C compiler, is not on this machine")
    folder = tmp_path_factory.mktemp("classes")
    (folder / "classes.c").write_text('#include "classes.h"\nvoid count(uint32_t w, unsigned *n) { classify(w, n); }\n')
    words = ["cc", "-shared", "-fPIC", "-I", str(SOURCES[0].parent), "-o", "classes.so", "classes.c"]
    subprocess.run(words, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "classes.so"))

    def classes(word: int) -> set[str]:
        counts = (ctypes.c_uint * len(CLASSES))()
        library.count(ctypes.c_uint32(word), counts)
        return {name for name, count in zip(CLASSES, counts, strict=True) if count}

    return classes


@pytest.mark.parametrize("text", ENCODINGS)
def test_an_instruction_is_counted_in_its_classes(text, classified):
    word, classes = ENCODINGS[text]
    assert classified(word) == {"instructions", *classes.split()}


def test_the_counter_and_the_reports_name_the_same_classes():
    listed = re.search(r"CLASS_NAMES\[CLASSES\] = \{(.*?)\};", SOURCES[1].read_text(), re.DOTALL)
    assert tuple(re.findall(r'"(\w+)"', listed.group(1))) == CLASSES


def test_the_plugin_compiles_without_a_warning(tmp_path, monkeypatch):
    if not shutil.which("cc"):
        pytest.skip("cc, a C compiler, is not on this machine")
    monkeypatch.setenv("CC", "cc -Wall -Wextra -Werror")
    compile_counter(tmp_path / "counter.so")
    words = ["nm", "-D", "--defined-only", tmp_path / "counter.so"]
    exported = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r" [DT] (\w+)", exported)) == {"qemu_plugin_install", "qemu_plugin_version"}


# Counts and outputs


def line(tag: int, instructions: int) -> str:
    return json.dumps({"tag": tag, **dict.fromkeys(CLASSES, 0), "instructions": instructions})


def test_counts_are_those_between_two_marks():
    marks = "\n".join([line(1, 999), line(2, 10), line(1, 5), line(2, 12)])
    assert [counts["instructions"] for counts in inference_counts(marks)] == [10, 12]


@pytest.mark.parametrize("marks", ["{", "[]", '{"tag": 2}', line(2, 1).replace("1", '"x"')])
def test_what_is_no_count_is_refused(marks):
    with pytest.raises(RuntimeFailure, match="wrote what cannot be read"):
        inference_counts(marks)


def test_integers_agree_to_the_bit():
    y = np.array([[1, 2, 3]], np.int8)
    assert compare([y], [y]) == Agreement("integer", 3, 0, 0.0)
    one_off = compare([y], [y + np.int8([0, 0, 1])])
    assert (one_off.differing, one_off.equal) == (1, False)


@pytest.mark.parametrize(("change", "equal"), [(0.9e-6, True), (1.2e-6, False)])
def test_floats_agree_within_a_millionth_of_the_largest(change, equal):
    y = np.array([1000.0, 1.0])
    found = compare([y], [y + np.array([0, 1000 * change])])
    assert found.kind == "float"
    assert found.relative == pytest.approx(change)
    assert found.equal is equal


def test_numbers_that_are_none_agree_with_themselves_alone():
    y = np.array([np.nan, np.inf, 2.0], np.float32)
    assert compare([y], [y]).equal
    assert not compare([y], [np.array([np.nan, 1.0, 2.0], np.float32)]).equal
    assert not compare([y], [np.array([0.0, np.inf, 2.0], np.float32)]).equal
    assert not compare([np.zeros(2)], [np.full(2, 1e-30)]).equal


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(RuntimeFailure, match="other shapes or types"):
        compare([np.zeros(3)], [np.zeros(4)])


def file_count(name: str, *instructions: int, differing: int = 0) -> FileCount:
    inferences = tuple({**dict.fromkeys(CLASSES, 0), "instructions": number} for number in instructions)
    agreement = Agreement("integer", 10, differing, 0.1 if differing else 0.0)
    return FileCount(name, {"runtime": "litert", "version": "2"}, inferences, agreement)


def test_a_report_has_instructions_and_no_times():
    report = InstructionReport("emulated:pi4", {"processor": "x"}, (file_count("a", 1000, 1000), file_count("b", 412)))
    assert report.ratios == (1.0, 0.412)
    assert report.warnings == ()
    data = json.loads(json.dumps(report.to_json()))
    assert data["unit"] == "instruction"
    assert [file["ratio"] for file in data["files"]] == [1.0, 0.412]
    assert not re.search(r"second|latency|\bms\b|nanosecond", json.dumps(data))


def test_a_report_says_what_is_not_as_it_should_be():
    files = (file_count("a", 10_000, 10_020), file_count("b", 5, differing=3))
    report = InstructionReport("emulated:pi4", {}, files)
    assert report.agree is False
    spread, outputs = report.warnings
    assert "a: the counts of 2 inferences differ by 0.20%" in spread
    assert "b: outputs on the board differ from this machine's (3 of 10 elements, by up to 1.0e-01" in outputs
