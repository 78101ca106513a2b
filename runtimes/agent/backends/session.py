"""The common form of all runtimes: a session with one input, run on numpy arrays.

A session speaks the file's own layout. ``run_nchw`` puts the layouts of the runtimes behind one convention, so that
the same float32 NCHW batch can be fed to any file and the outputs can be compared element by element.

A file may accept any number of images at once, or only the number it was written for. In the second case the batch is
cut into pieces of that size; the last piece is filled up with zeros and the surplus outputs are dropped, so a network
that treats the images of a batch independently gives the same outputs either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from pathlib import Path

    from edgekron.runtimes.agent.messages import RuntimeFacts


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    ``shape`` has None where any size is accepted; ``layout`` is "NCHW" or "NHWC" for images, else "plain"; ``network``
    is the layout that the network has, of which the file was made; ``quantization`` is (scale, zero point) of an
    integer tensor that stands for real numbers.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str
    quantization: tuple[float, int] | None = None
    network: str = "NCHW"

    def to_file(self, x: np.ndarray) -> np.ndarray:
        """An array with the axes of the network in the axes of the file."""
        return _moved(x, self.network, self.layout)

    def from_file(self, x: np.ndarray) -> np.ndarray:
        """An array with the axes of the file in the axes of the network."""
        return _moved(x, self.layout, self.network)


def _moved(x: np.ndarray, before: str, after: str) -> np.ndarray:
    if before == after or x.ndim != len(before) or x.ndim != len(after):
        return x
    return x.transpose([before.index(axis) for axis in after])


class Session(Protocol):
    """A model file opened in a runtime."""

    file: str
    input: TensorInfo
    outputs: Sequence[TensorInfo]

    def run(self, array: np.ndarray) -> list[np.ndarray]:
        """One inference on an array in the file's own shape, type and layout."""
        ...

    def resize(self, batch: int) -> bool:
        """Prepares for this many images at once; False where the file's own number is fixed."""
        ...

    def describe(self) -> RuntimeFacts:
        """Name and version of the runtime, its threads, and what executes the operators."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


def only_input(file: str | Path, inputs: Sequence[TensorInfo]) -> TensorInfo:
    """The single input of a file; a file with more is refused."""
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs) or "none"
        raise RuntimeFailure(
            f"{file} has {len(inputs)} inputs ({names}); only networks with one input can be run, "
            "so export it with the others made constant."
        )
    return inputs[0]


def random_input(session: Session, seed: int) -> np.ndarray:
    """One input of standard normal numbers (integers: uniform over the type); a free batch is 1."""
    tensor = session.input
    free = [axis for axis, size in enumerate(tensor.shape) if size is None and axis > 0]
    if free:
        raise RuntimeFailure(
            f"{session.file}: input {tensor.name} has no fixed size on axis {free[0]} (shape {_show(tensor.shape)}); "
            "export it with --fixed-size."
        )
    shape = tuple(1 if size is None else size for size in tensor.shape)
    random = np.random.default_rng(seed)
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    raise RuntimeFailure(f"{session.file}: input {tensor.name} is of type {tensor.dtype}; export it with float inputs.")


def run_nchw(session: Session, images: np.ndarray) -> list[np.ndarray]:
    """Runs ``images``, [N, C, H, W] or as the network takes them; gives the outputs as float32 with the axes that they
    have in the network.

    Integer inputs and outputs are converted by their own quantization. Raises ``RuntimeFailure`` when the images do
    not fit the file's input.
    """
    x = _to_input(session, images)
    count = len(x)
    if count == 0:
        raise RuntimeFailure(f"{session.file} was given no image; give at least one.")
    size = count if session.resize(count) else session.input.shape[0] or count
    pieces = []
    for start in range(0, count, size):
        piece = x[start : start + size]
        if len(piece) < size:
            piece = np.concatenate([piece, np.zeros((size - len(piece), *x.shape[1:]), x.dtype)])
        pieces.append(session.run(piece))
    joined = []
    for index, tensor in enumerate(session.outputs):
        parts = [np.asarray(piece[index]) for piece in pieces]
        if any(part.ndim == 0 or len(part) != size for part in parts):
            raise RuntimeFailure(
                f"{session.file}: output {tensor.name} has shape {_show(parts[0].shape)} for {size} images; "
                "its first axis must be the batch, so export the network without the last reshape."
            )
        joined.append(_from_output(np.concatenate(parts)[:count], tensor))
    return joined


def _to_input(session: Session, images: np.ndarray) -> np.ndarray:
    tensor = session.input
    x = tensor.to_file(np.asarray(images))
    fits = x.ndim == len(tensor.shape) and all(size in (None, got) for size, got in zip(tensor.shape[1:], x.shape[1:]))
    if not fits:
        raise RuntimeFailure(
            f"{session.file} takes {tensor.name} of shape {_show(tensor.shape)} ({tensor.layout}), and images of shape "
            f"{_show(np.shape(images))} ({tensor.network}) were given; use data of the file's size."
        )
    dtype = np.dtype(tensor.dtype)
    if dtype.kind in "iu" and not (tensor.quantization is None and x.dtype == dtype):
        if tensor.quantization is None:
            raise RuntimeFailure(f"{session.file}: input {tensor.name} is {dtype} without a scale; give it {dtype}.")
        x = to_integers(x, dtype, tensor.quantization)
    return np.ascontiguousarray(x, dtype=dtype)


def to_integers(x: np.ndarray, dtype: np.dtype, quantization: tuple[float, int]) -> np.ndarray:
    """Real numbers as the nearest integers of (scale, zero point); saturates at the ends of the type."""
    scale, zero = quantization
    limits = np.iinfo(dtype)
    return np.clip(np.round(x / np.float32(scale)) + zero, limits.min, limits.max).astype(dtype)


def to_real(y: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    """The float32 numbers that integers of (scale, zero point) stand for."""
    scale, zero = quantization
    return (y.astype(np.float32) - zero) * np.float32(scale)


def _from_output(y: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    if tensor.quantization is not None:
        y = to_real(y, tensor.quantization)
    return np.ascontiguousarray(tensor.from_file(y), dtype=np.float32)


def _show(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
