"""Top-1 accuracy of a model file, in the runtime that runs it, in a process of its own."""

from __future__ import annotations

import base64
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from .agent.backends import backend
from .agent.errors import RuntimeFailure
from .devices import LocalDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .agent.messages import RuntimeFacts

#: One batch: images as the network takes them, such as float32 [N, C, H, W], and int64 labels [N].
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of a file. ``predictions`` is int64 [total], in the order of the data."""

    file: str
    runtime: RuntimeFacts
    correct: int
    total: int
    predictions: np.ndarray = field(repr=False, compare=False)

    @property
    def top1(self) -> float:
        """The fraction of images whose highest score is their label."""
        return self.correct / self.total

    def to_json(self) -> dict[str, object]:
        """Plain data, without the predictions."""
        return {
            "file": self.file,
            "runtime": dict(self.runtime),
            "correct": self.correct,
            "total": self.total,
            "top1": self.top1,
        }


def top1(
    path: str | Path,
    batches: Iterable[Batch],
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Runs every batch through the file; its first output must be one score a class.

    ``progress`` is told how many images are done. Raises ``RuntimeFailure`` when the file cannot be run, the images do
    not fit it, its output is no list of scores or is not finite, or there is no labelled image.
    """
    backend(path)
    correct = total = 0
    predictions = []
    with ExitStack() as stack:
        worker = stack.enter_context(stack.enter_context(closing(LocalDevice())).start(str(path), threads))
        loaded = worker.ask("load", file=str(path), threads=threads, cores=None)
        for images, labels in batches:
            x = np.ascontiguousarray(images)
            data = base64.b64encode(x.tobytes()).decode()
            answer = worker.ask("run", shape=x.shape, data=data, dtype=x.dtype.name)
            predicted = _classes(path, answer["outputs"][0], total)
            if len(labels) != len(predicted) or np.any(np.asarray(labels) < 0):
                raise RuntimeFailure(f"the data for {path} have images without a label; accuracy needs one for each.")
            correct += int(np.sum(predicted == labels))
            total += len(predicted)
            predictions.append(predicted)
            if progress:
                progress(total)
    if not total:
        raise RuntimeFailure(f"there is no image to evaluate {path} on; give a data set with at least one.")
    return Accuracy(str(path), loaded["runtime"], correct, total, np.concatenate(predictions))


def agreement(first: Accuracy, second: Accuracy) -> float:
    """The fraction of images that two files put into the same class; both must have seen the same data."""
    if first.total != second.total:
        raise RuntimeFailure(
            f"{first.file} saw {first.total} images and {second.file} {second.total}; evaluate both on the same data."
        )
    return float(np.mean(first.predictions == second.predictions))


class _Output(TypedDict):
    """One output in a worker's answer: its shape, and its float32 values in base64."""

    shape: list[int]
    data: str


def _classes(path: str | Path, output: _Output, done: int) -> np.ndarray:
    """The class of each image, from the worker's first output."""
    shape = output["shape"]
    if len(shape) < 2 or int(np.prod(shape[2:])) != 1 or shape[1] < 1:
        raise RuntimeFailure(f"{path} gives an output of shape {shape}, not one score a class [N, classes].")
    scores = np.frombuffer(base64.b64decode(output["data"]), np.float32).reshape(shape[0], shape[1])
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if broken.size:
        image = done + int(broken[0])
        raise RuntimeFailure(f"{path} gives scores that are not finite for image {image}; check its weights.")
    classes: np.ndarray = scores.argmax(axis=1)
    return classes.astype(np.int64)
