from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekron.runtimes import RuntimeFailure, agreement, load, run_nchw, top1

if TYPE_CHECKING:
    from pathlib import Path

Images = Callable[[int], np.ndarray]
Expected = Callable[[np.ndarray], list[np.ndarray]]


def in_batches(images: np.ndarray, labels: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(images), size):
        yield images[start : start + size], labels[start : start + size]


@pytest.mark.parametrize("size", [7, 64])
def test_accuracy_equals_the_argmax_of_direct_runs(small: Path, size: int, images: Images, expected: Expected) -> None:
    x = images(40)
    truth = expected(x)[0].argmax(axis=1)
    direct = run_nchw(load(small), x)[0].argmax(axis=1)
    labels = truth.copy()
    labels[::4] = (labels[::4] + 1) % 5  # a quarter wrong
    done: list[int] = []
    accuracy = top1(small, in_batches(x, labels, size), progress=done.append)
    assert np.array_equal(accuracy.predictions, direct)
    assert np.array_equal(accuracy.predictions, truth)
    assert (accuracy.correct, accuracy.total, accuracy.top1) == (30, 40, 0.75)
    assert done[-1] == 40
    assert accuracy.to_json()["runtime"]["runtime"] in ("onnxruntime", "litert")


def test_agreement_counts_equal_predictions(
    kernel: np.ndarray, images: Images, write_onnx: Callable[..., Path], write_tflite: Callable[..., Path]
) -> None:
    x = images(40)
    labels = np.zeros(40, np.int64)
    swapped = kernel[[1, 0, 2, 3, 4]]
    a = top1(write_onnx(kernel, (7, 10)), [(x, labels)])
    b = top1(write_tflite(kernel, (7, 10)), [(x, labels)])
    c = top1(write_onnx(swapped, (7, 10)), [(x, labels)])
    assert agreement(a, b) == 1.0
    assert agreement(a, c) == np.mean(a.predictions >= 2)
    with pytest.raises(RuntimeFailure, match="same data"):
        agreement(a, top1(a.file, [(x[:3], labels[:3])]))


@pytest.mark.parametrize("small", ["any.onnx", "fixed.tflite"], indirect=True)
def test_data_that_cannot_be_scored_are_refused(small: Path, images: Images) -> None:
    x = images(4)
    with pytest.raises(RuntimeFailure, match="without a label"):
        top1(small, [(x, np.array([0, 1, -1, 2]))])
    with pytest.raises(RuntimeFailure, match="without a label"):
        top1(small, [(x, np.array([0, 1]))])
    with pytest.raises(RuntimeFailure, match="no image"):
        top1(small, [])
    with pytest.raises(RuntimeFailure, match="images of shape"):
        top1(small, [(x[:, :2], np.zeros(4, np.int64))])
    broken = x.copy()
    broken[2, 0, 0, 0] = np.nan
    with pytest.raises(RuntimeFailure, match="not finite for image 6"):
        top1(small, [(x, np.zeros(4, np.int64)), (broken, np.zeros(4, np.int64))])


def test_an_output_that_is_no_list_of_scores_is_refused(tmp_path: Path, images: Images) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, 7, 10]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "map", values[:1], values[1:])
    path = tmp_path / "map.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(RuntimeFailure, match="not one score a class"):
        top1(path, [(images(2), np.zeros(2, np.int64))])


def test_a_damaged_file_is_refused(small: Path, tmp_path: Path, images: Images) -> None:
    short = tmp_path / f"short{small.suffix}"
    short.write_bytes(small.read_bytes()[:300])
    with pytest.raises(RuntimeFailure, match="short"):
        top1(short, [(images(1), np.zeros(1, np.int64))])
