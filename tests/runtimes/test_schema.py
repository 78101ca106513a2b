"""Nothing that a device sends is used before it has the shape of an answer."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest

from edgekron.runtimes import RuntimeFailure, schema
from edgekron.runtimes.devices.answers import listen

TENSOR = {"name": "x", "shape": [None, 3], "dtype": "float32", "layout": "plain"}
MEASURED: dict[str, Any] = {
    "facts": {"cores": 4, "governor": {"cpu0": "performance"}},
    "before": {"throttled": 0},
    "during": [{"frequency": {"cpu0": 10**9}, "temperature": {"cpu": 40.5}}],
    "after": {},
    "files": [
        {
            "name": "a.onnx",
            "runtime": {"runtime": "onnxruntime", "version": "1"},
            "input": TENSOR,
            "outputs": [TENSOR],
            "cores": [1],
            "cold": {"process": 1, "runtime": None, "load": 3, "first": 4},
            "warm_up": 3,
            "settled": True,
            "rounds": [[1, 2], [3]],
            "paced": None,
            "memory": {"file": 1, "runtime": None, "loaded": None, "peak": None, "steady": 5},
        }
    ],
}


def test_a_right_answer_passes() -> None:
    schema.check(MEASURED, "measure", "the board")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["files", 0, "rounds"], [[1.5]]),
        (["files", 0, "rounds"], [1]),
        (["files", 0, "rounds"], [[True]]),
        (["files", 0, "settled"], 1),
        (["files", 0, "memory", "steady"], "5"),
        (["files", 0, "cold", "load"], None),
        (["files", 0, "name"], None),
        (["files", 0, "paced"], {"hertz": 1}),
        (["files"], {}),
        (["facts"], []),
        (["facts", "cores"], "4"),
        (["facts", "governor"], {"cpu0": 3}),
        (["before", "throttled"], "0x5"),
        (["during", 0, "frequency"], {"cpu0": "fast"}),
        (["after", "load"], 1.0),
        (["files", 0, "rounds"], [[2**63]]),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(path: list[Any], value: object) -> None:
    answer = copy.deepcopy(MEASURED)
    inner = answer
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(
        RuntimeFailure, match=rf"the board sent an answer that is none of the agent's \(measure.*{path[-1]}"
    ):
        schema.check(answer, "measure", "the board")
    del inner[path[-1]]
    if path[0] == "files":
        with pytest.raises(RuntimeFailure, match=f"without {path[-1]}"):
            schema.check(answer, "measure", "the board")


def test_a_word_must_be_one_of_the_agents() -> None:
    proof = {"means": "rlimit", "lived": False, "stage": "load", "reason": "died.", "peak": None, "memory": None}
    schema.check(proof, "prove", "the board")
    with pytest.raises(RuntimeFailure, match=r"prove\.stage: 'moon'"):
        schema.check({**proof, "stage": "moon"}, "prove", "the board")


@pytest.mark.parametrize("line", ["", "Welcome!", "[1]", "3", '{"ok": NaN}', '{"a": 1e999}', '{"ok": ' + "[" * 5000])
def test_a_line_that_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises(RuntimeFailure, match="the board sent .*, not an answer"):
        schema.parse(line.encode(), "the board")


def test_text_is_rid_of_control_characters_and_cut() -> None:
    parsed = schema.parse(json.dumps({"a\n": "\x1b[2J\x07" + "x" * 5000}).encode(), "the board")
    ((key, value),) = parsed.items()
    assert key == "a "
    assert value.startswith(" [2J x")
    assert len(value) == 2000


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LONGEST_LINE", 100)
    with pytest.raises(RuntimeFailure, match="a line of 101 bytes"):
        listen(io.BytesIO(b"x" * 1000), "measure", "the board")


def test_an_agents_refusal_is_its_own_sentence() -> None:
    lines = io.BytesIO(b'{"step": {"done": 0, "total": 1, "text": "t"}}\n{"ok": false, "error": "no \\u001b disk."}\n')
    steps: list[dict[str, Any]] = []
    with pytest.raises(RuntimeFailure, match=r"^no   disk\.$"):
        listen(lines, "measure", "the board", steps.append)
    assert steps == [{"done": 0, "total": 1, "text": "t"}]
    assert listen(io.BytesIO(b""), "measure", "the board") is None
    with pytest.raises(RuntimeFailure, match=r"step"):
        listen(io.BytesIO(b'{"step": {"done": "0"}}\n'), "measure", "the board")
