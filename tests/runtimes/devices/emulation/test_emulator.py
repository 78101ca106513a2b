"""Real ARM code: the emulated board and its virtual machine, built by ``edgekron devices emulate pi4 --machine``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekron.runtimes import Measuring, RuntimeFailure, bench
from edgekron.runtimes.devices.emulation import InstructionReport, cache_folder
from edgekron.runtimes.devices.emulation.device import EmulatedDevice, MachineDevice, open_emulated

pytestmark = pytest.mark.emulator

#: Found before the other tests move the user's cache folder elsewhere: what is built is built once, and for good.
CACHE = cache_folder()


def opened(place: str) -> EmulatedDevice | MachineDevice:
    """The device, or the reason why these tests are left out."""
    try:
        return open_emulated(place, CACHE)
    except RuntimeFailure as failure:
        pytest.skip(str(failure))


@pytest.fixture(scope="module")
def board() -> Iterator[EmulatedDevice]:
    device = opened("pi4")
    yield device
    device.close()


def two_layers(path: Path, rows: int) -> Path:
    """A 3x3 convolution of a 100x20 image, and a 1x1 one of its 100 rows and ``rows`` of padding."""
    random = np.random.default_rng(0)
    weights = {
        "a": random.normal(size=(32, 16, 3, 3)).astype(np.float32),
        "b": random.normal(size=(32, 32, 1, 1)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["middle"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["middle", "b"], ["y"], pads=[rows, 0, 0, 0]),
        ],
        "two",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16, 100, 20])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 32, 100 + rows, 20])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def counted(
    board: EmulatedDevice, tmp_path_factory: pytest.TempPathFactory, write_tflite: Callable[..., Path]
) -> InstructionReport:
    """The same file twice, one with 1 % more work in its second layer, and a TFLite file: [64, 32, 32, 32] by 3x3."""
    folder = tmp_path_factory.mktemp("counted")
    file, more = two_layers(folder / "file.onnx", 0), two_layers(folder / "more.onnx", 1)
    kernel = np.random.default_rng(0).normal(size=(64, 32, 3, 3)).astype(np.float32)
    return board.count([file, file, more, write_tflite(kernel, (32, 32))])


def test_counts_repeat(counted):
    first, again = counted.files[:2]
    assert first.spread < 1e-3
    assert again.instructions == pytest.approx(first.instructions, rel=1e-3)
    assert first.count("float_macs") == again.count("float_macs")


def test_a_percent_more_work_in_one_layer_is_found(counted):
    first, again, more = counted.files[:3]
    noise = max(first.spread, again.spread, more.spread) * first.instructions
    noise = max(noise, abs(first.instructions - again.instructions))
    # 20 pixels of 32 x 32 multiply-accumulates, four at once; the runtime fills up its last tile of pixels.
    added = more.count("float_macs") - first.count("float_macs")
    assert 20 * 32 * 32 / 4 <= added <= 1.5 * 20 * 32 * 32 / 4
    assert more.instructions - first.instructions > 3 * noise


def test_all_multiply_accumulates_are_seen(counted):
    # The runtime computes four at once, and nothing in vain for these sizes.
    assert 4 * counted.files[3].count("float_macs") == 32 * 32 * 64 * 32 * 9


def test_outputs_are_those_of_this_machine(board, counted, int8_relu):
    assert counted.agree
    assert all(file.agreement.relative <= 1e-6 for file in counted.files)
    (integers,) = board.count([int8_relu], inferences=1).files
    assert (integers.agreement.kind, integers.agreement.differing) == ("integer", 0)


def test_the_board_is_not_this_machine(board):
    answer = board.facts()
    assert answer["facts"]["machine"] == "aarch64"
    assert answer["facts"]["cores"] == 4
    assert not {"avx2", "fma"} & set(answer["facts"]["features"])


@pytest.mark.thorough
def test_the_virtual_machine_is_a_board_over_ssh(kernel, write_tflite):
    device = opened("pi4:ssh")
    assert isinstance(device, MachineDevice)
    machine = device.machine
    try:
        facts = device.facts()["facts"]
        assert (facts["machine"], facts["clock"], facts["cores"]) == ("aarch64", "instructions", 1)
        report = bench([write_tflite(kernel, (32, 32))], Measuring(rounds=2, seconds=0.02), device=device)
        assert any("clock counts instructions" in warning for warning in report.warnings)
        (file,) = report.files
        # Nothing but the runtime's own instructions and a few of the kernel's: the fastest inferences are alike.
        fastest = [min(samples) for samples in file.rounds]
        assert max(fastest) == pytest.approx(min(fastest), rel=0.02)
        said = subprocess.run(
            ["ssh", "-F", machine.config, machine.host, "id -un"], capture_output=True, text=True, check=True
        )
        assert said.stdout == "pi\n"
    finally:
        device.close()
    gone = subprocess.run(["ssh", "-F", machine.config, machine.host, "true"], capture_output=True, check=False)
    assert gone.returncode == 255
