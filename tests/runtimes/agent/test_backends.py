from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekron.runtimes import RuntimeFailure, load, run_nchw
from edgekron.runtimes.agent.backends import random_input

if TYPE_CHECKING:
    from pathlib import Path

Images = Callable[[int], np.ndarray]
Expected = Callable[[np.ndarray], list[np.ndarray]]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_file_gives_the_same_outputs_for_any_batch(
    small: Path, count: int, threads: int, images: Images, expected: Expected
) -> None:
    session = load(small, threads)
    x = images(count)
    outputs = run_nchw(session, x)
    for got, wanted in zip(outputs, expected(x), strict=True):
        assert got.dtype == np.float32
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    session.close()


def test_batches_of_different_sizes_follow_each_other(small: Path, images: Images, expected: Expected) -> None:
    session = load(small)
    for count in (2, 5, 1, 4):
        x = images(count)
        np.testing.assert_allclose(run_nchw(session, x)[0], expected(x)[0], rtol=1e-4, atol=1e-5)


def test_a_session_describes_itself(small: Path) -> None:
    session = load(small, 1)
    described = session.describe()
    suffix = small.suffix
    assert described["runtime"] == {".onnx": "onnxruntime", ".tflite": "litert"}[suffix]
    assert described["threads"] == 1
    assert described["delegate"] == {".onnx": "CPUExecutionProvider", ".tflite": "XNNPACK"}[suffix]
    assert session.input.layout == {".onnx": "NCHW", ".tflite": "NHWC"}[suffix]
    assert session.input.shape[1:] == {".onnx": (3, 7, 10), ".tflite": (7, 10, 3)}[suffix]
    assert [tensor.name for tensor in session.outputs] == ["scores", "map"]


def test_random_input_has_the_file_s_own_shape_and_repeats(small: Path) -> None:
    session = load(small)
    x = random_input(session, 3)
    assert x.shape == (session.input.shape[0] or 1, *session.input.shape[1:])
    assert np.array_equal(x, random_input(session, 3))
    assert not np.array_equal(x, random_input(session, 4))


def test_integer_files_are_fed_and_read_by_their_quantization(int8_relu: Path, images: Images) -> None:
    x = images(2) * 4
    (y,) = run_nchw(load(int8_relu), x)
    codes = np.clip(np.round(x / np.float32(0.05)) - 7, -128, 127)
    np.testing.assert_allclose(y, np.maximum((codes + 7) * 0.05, 0), atol=1e-6)
    assert random_input(load(int8_relu), 0).dtype == np.int8


@pytest.mark.parametrize("shape", [(1, 3, 10, 7), (1, 7, 10, 3), (1, 4, 7, 10), (3, 7, 10)])
def test_images_that_do_not_fit_are_refused_with_both_shapes(small: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeFailure, match=rf"{small.name} takes x .*" + re.escape(f"images of shape {list(shape)}")):
        run_nchw(load(small), np.zeros(shape, np.float32))


def test_no_image_is_refused(small: Path) -> None:
    with pytest.raises(RuntimeFailure, match="no image"):
        run_nchw(load(small), np.zeros((0, 3, 7, 10), np.float32))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(small: Path, tmp_path: Path, kept: float) -> None:
    whole = small.read_bytes()
    short = tmp_path / f"short{small.suffix}"
    short.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(RuntimeFailure, match=rf"{short.name} .*export it again"):
        load(short)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.pt", b"", "export the model to .onnx or .tflite first"),
        ("resnet20", b"", "export the model to .onnx or .tflite first"),
        ("text.tflite", b"this is not a flatbuffer", "is not a TFLite file"),
        ("text.onnx", b"this is not a protobuf", "cannot be opened by ONNX Runtime"),
        ("missing.onnx", None, "does not exist"),
        ("missing.tflite", None, "does not exist"),
    ],
)
def test_what_is_no_model_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeFailure, match=words) as refusal:
        load(path)
    assert name in str(refusal.value)


def test_a_file_with_two_inputs_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", values[:2], values[2:])
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(RuntimeFailure, match=r"two.onnx has 2 inputs \(a, b\)"):
        load(path)


def test_a_file_of_free_image_size_has_no_random_input(kernel: np.ndarray, write_onnx: Callable[..., Path]) -> None:
    session = load(write_onnx(kernel, ("H", "W")))
    with pytest.raises(RuntimeFailure, match="no fixed size on axis 2"):
        random_input(session, 0)


def test_a_runtime_that_is_too_old_says_what_to_install(
    kernel: np.ndarray,
    write_onnx: Callable[..., Path],
    write_tflite: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ai_edge_litert.interpreter
    import onnxruntime

    onnx_file, tflite_file = write_onnx(kernel, (7, 10)), write_tflite(kernel, (7, 10))
    monkeypatch.delattr(onnxruntime, "disable_telemetry_events")
    with pytest.raises(
        RuntimeFailure, match=r"ONNX Runtime [\d.]+ is too old; run `pip install --upgrade onnxruntime`"
    ):
        load(onnx_file)

    def interpreter(model_path: str) -> None:
        pytest.fail("number of threads unknown")

    monkeypatch.setattr(ai_edge_litert.interpreter, "Interpreter", interpreter)
    with pytest.raises(RuntimeFailure, match=r"litert [\d.]+ is too old, or does not work with numpy .*pip install"):
        load(tflite_file)
