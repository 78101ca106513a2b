"""Damaged files: one sentence and exit code 2, or a whole file all the same; never a crash, never half a result.

Every case changes bytes of a real file and runs the command in a process of its own, in which a crash of a library, a
segmentation fault among them, is seen and not suffered.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.cli.main import main
from edgekron.compression.compressor import compress
from edgekron.graph import load

#: Exit codes of a child: the command's own, and what must never happen.
DONE, REFUSED, RAISED, LEFT = 0, 2, 90, 91
#: Sizes may be changed to anything; a child that asks for more memory than this gets an error.
MEMORY = 4 << 30
SECONDS = 60


def network(path: Path, *, choice: bool) -> Path:
    """A small network as older files have it: shape computations, batch normalisation, unnamed nodes; with an If."""
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.uniform(0.1, 1, shape).astype(np.float32), name)

    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["b"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    choices = [
        helper.make_node("ReduceMax", ["b"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["d"], then_branch=branch("t", "Relu"), else_branch=branch("e", "Tanh")),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["a", "n1", "n2", "n3", "n4"], ["b"]),
            *(choices if choice else [helper.make_node("Relu", ["b"], ["d"])]),
            helper.make_node("Conv", ["d", "w2"], ["f"], strides=[2, 2]),
            helper.make_node("Shape", ["f"], ["s"]),
            helper.make_node("Gather", ["s", "first"], ["n"]),
            helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["f", "target"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m1"], ["y"], name="last"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [tensor("w1", 4, 3, 3, 3), *(tensor(f"n{i}", 4) for i in (1, 2, 3, 4)), tensor("w2", 6, 4, 2, 2),
         tensor("m1", 96, 5), numpy_helper.from_array(np.float32(0), "zero"),
         numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(np.array([-1]), "rest")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def hub_file(path: Path, source: Path) -> Path:
    """The compressed network of ``source`` as a hub file."""
    compress(load(source), model="net", ratios={"macs": 1.2}).hub.save(path)
    return path


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, doubled or swapped; or an end cut off."""
    array = bytearray(data)
    kind = random.integers(5)
    start = int(random.integers(len(array)))
    span = int(random.integers(1, 1 + min(64, len(array) - start)))
    if kind == 0:
        for _ in range(int(random.integers(1, 9))):
            array[int(random.integers(len(array)))] = int(random.integers(256))
    elif kind == 1:
        array[int(random.integers(len(array)))] ^= 1 << int(random.integers(8))
    elif kind == 2:
        del array[start : start + span]
    elif kind == 3:
        array[start:start] = array[start : start + span]
    else:
        del array[start:]
    return bytes(array)


def outcome(words: list[str], out: Path, messages: Path) -> int:
    """The exit code of the command in a child of this process; negative for a signal."""
    child = os.fork()
    if child == 0:
        code = RAISED
        try:
            sink = os.open(messages, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            resource.setrlimit(resource.RLIMIT_AS, (_used() + MEMORY, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # The handlers that pytest set would hide a crash.
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = main(words)
            sys.stdout.flush()
            if code == REFUSED and _partial(out):
                code = LEFT
        except BaseException:  # noqa: BLE001  a child must not live on as a second run of the tests
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _partial(out: Path) -> bool:
    return any(path.name.startswith((out.name, f".{out.name}")) for path in out.parent.iterdir())


def survive(tmp_path: Path, cases: int, seed: int) -> None:
    plain = network(tmp_path / "plain.onnx", choice=False)
    sources = [
        network(tmp_path / "choice.onnx", choice=True).read_bytes(),
        hub_file(tmp_path / "hub.onnx", plain).read_bytes(),
        plain.read_bytes(),
    ]
    random = np.random.default_rng(seed)
    folder = tmp_path / "results"
    folder.mkdir()
    damaged, messages = tmp_path / "damaged.onnx", tmp_path / "messages"
    refused = 0
    for case in range(cases):
        data = mutated(sources[case % 3], random)
        damaged.write_bytes(data)
        out = folder / f"out.{'tflite' if case % 2 else 'onnx'}"
        words = ["export", str(damaged), "--to", out.suffix[1:], "-o", str(out)]
        code = outcome(words, out, messages)
        said = messages.read_text(errors="replace")
        kept = tmp_path.parent / f"case-{seed}-{case}.onnx"
        if code not in (DONE, REFUSED):
            kept.write_bytes(data)
        assert code in (DONE, REFUSED), f"{kept}: exit code {code}\n{said[-2000:]}"
        if code == REFUSED:
            refused += 1
            assert said.count("edgekron: error: ") == 1, said
        out.unlink(missing_ok=True)
    assert refused > cases // 4


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    survive(tmp_path, 100, seed=0)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_damaged_files_are_refused(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, 400, seed)
