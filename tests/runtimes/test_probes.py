from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekron.runtimes import RuntimeFailure, load, run_nchw
from edgekron.runtimes.devices import LocalDevice
from edgekron.runtimes.probes import node_times, prove_memory, tensor_arena
from edgekron.runtimes.single_operators import cut

Write = Callable[..., Path]


@pytest.fixture
def large(write_onnx: Write) -> Path:
    """38 MB of weights."""
    return write_onnx(np.ones((1024, 1024, 3, 3), np.float32), (4, 4))


def test_a_file_lives_under_a_limit_that_it_keeps(kernel: np.ndarray, write_onnx: Write) -> None:
    proof = prove_memory(write_onnx(kernel, (7, 10)), 400 * 2**20)
    assert (proof.lived, proof.stage, proof.reason) == (True, "done", None)
    assert proof.means in ("cgroup", "rlimit")
    assert proof.memory is not None
    assert proof.peak is None or 2**20 < proof.peak <= 400 * 2**20


def test_a_file_too_large_for_the_limit_dies_and_says_where(large: Path) -> None:
    proof = prove_memory(large, 40 * 2**20)
    assert not proof.lived
    assert proof.stage in ("load", "run")
    assert proof.reason is not None
    assert str(large) in proof.reason


def test_a_file_that_never_runs_is_an_error_and_no_proof(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(RuntimeFailure, match=r"broken\.onnx cannot be opened by ONNX Runtime"):
        prove_memory(broken, 2**30)


def test_running_out_of_time_is_no_death(device: LocalDevice, kernel: np.ndarray, write_onnx: Write) -> None:
    file = {"path": str(write_onnx(kernel, (7, 10))), "name": "a"}
    fields = {"do": "prove", "threads": 1, "seed": 0, "limit": 2**30, "runs": 10**9, "limit_s": 1, "patience": 60}
    with pytest.raises(RuntimeFailure, match="longer than its limit of 1 seconds"):
        device.run_agent({**fields, "file": file})


def test_even_python_may_not_fit(large: Path) -> None:
    proof = prove_memory(large, 2**20)
    assert (proof.lived, proof.stage) == (False, "start")
    with pytest.raises(RuntimeFailure, match="less than any process needs"):
        prove_memory(large, 1000)


def test_the_arena_holds_what_is_alive_at_once(kernel: np.ndarray, write_tflite: Write) -> None:
    file = write_tflite(kernel, (32, 32))
    arena = tensor_arena(file)
    image, result = 32 * 32 * 3 * 4, 32 * 32 * 5 * 4
    assert arena.litert is not None
    # The input and the map are alive at once, and the convolution's own scratch is no larger than its unfolded input.
    assert image + result <= arena.litert <= image + result + 9 * image + 4096
    with pytest.raises(RuntimeFailure, match="has no tensor arena"):
        tensor_arena("x.onnx")


@pytest.mark.skipif(not importlib.util.find_spec("tflite_micro"), reason="pip install --pre tflite-micro")
def test_the_arena_for_microcontrollers(kernel: np.ndarray, write_tflite: Write) -> None:
    arena = tensor_arena(write_tflite(kernel, (32, 32)))
    assert arena.note is None
    assert arena.micro is not None
    assert arena.micro_head is not None
    assert 32 * 32 * 8 * 4 <= arena.micro_head < arena.micro < 10 * 32 * 32 * 8 * 4


def test_nodes_are_timed_on_the_device(kernel: np.ndarray, write_onnx: Write, write_tflite: Write) -> None:
    nodes = node_times(write_onnx(kernel, (7, 10)), runs=3)
    assert {"Conv", "ReduceMean"} <= {node.operator for node in nodes}
    assert all(node.seconds >= 0 for node in nodes)
    with pytest.raises(RuntimeFailure, match="only .onnx files can"):
        node_times(write_tflite(kernel, (7, 10)))


def test_a_tflite_file_is_cut_into_operators_that_compute_the_same(
    kernel: np.ndarray, write_tflite: Write, images: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    file = write_tflite(kernel, (7, 10))
    operators = cut(file, tmp_path)
    assert [(o.kind, o.constants, o.outputs) for o in operators] == [
        ("CONV_2D", ("w", "b"), ("map",)),
        ("MEAN", ("axes",), ("scores",)),
    ]
    x = images(1)
    scores, image = run_nchw(load(file), x)
    first, second = (load(operator.alone) for operator in operators if operator.alone)
    (alone,) = run_nchw(first, x)
    np.testing.assert_array_equal(alone, image)
    (mean,) = run_nchw(second, alone)
    np.testing.assert_array_equal(mean, scores)


def test_operators_equal_but_for_their_weights_share_a_file(
    kernel: np.ndarray, write_tflite: Write, tmp_path: Path
) -> None:
    files = [write_tflite(weights, (7, 10)) for weights in (kernel, kernel + 1, kernel[:3])]
    alone = [[operator.alone for operator in cut(file, tmp_path)] for file in files]
    assert alone[0] == alone[1]
    assert alone[0][0] != alone[2][0]
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"nothing at all")
    with pytest.raises(RuntimeFailure, match="broken.tflite cannot be cut into its operators"):
        cut(broken, tmp_path)
