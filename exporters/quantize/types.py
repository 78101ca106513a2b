"""The types that an exported file can have.

float32        as trained
float16        weights in float16, arithmetic in float32: half the bytes
int8-dynamic   weights in int8, activations float between the layers: a quarter of the bytes. TFLite's kernels
               quantize each activation and compute in integers; an ONNX file computes in float32
int8           weights and activations in int8, the activations' ranges taken from calibration images
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekron.errors import UserError

DTYPES = ("float32", "float16", "int8-dynamic", "int8")

#: The largest value of float16.
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Quantization:
    """The type of a file: ``dtype`` is one of ``DTYPES``.

    "int8" needs calibration ``images``, as the network takes them. With ``integer_io`` the inputs and outputs of an
    int8 file are integers too. ``rebalanced`` says whether the factors of layers that compute in integers are rescaled
    first (``rebalance``). Raises ``UserError`` for values that do not go together.
    """

    dtype: str = "float32"
    images: Sequence[np.ndarray] = ()
    integer_io: bool = False
    rebalanced: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"there is no type {self.dtype!r}; choose one of {', '.join(DTYPES)}.")
        if self.integer_io and self.dtype != "int8":
            raise UserError(f"inputs and outputs of a {self.dtype} file are float32; integers need --dtype int8.")
        if self.dtype == "int8" and not len(self.images):
            raise UserError("--dtype int8 needs calibration images for the ranges of its activations; give --data.")
        if not all(np.isfinite(batch).all() for batch in self.images):
            raise UserError("the calibration images contain NaN or infinite values; give others.")


def computes_in_integers(dtype: str, target: str) -> bool:
    """Whether layers of a ``target`` file ("onnx" or "tflite") multiply integers; others only store smaller weights."""
    return dtype == "int8" or (dtype == "int8-dynamic" and target == "tflite")


def pieces(images: Sequence[np.ndarray], at_once: int, *, exactly: bool) -> Iterator[np.ndarray]:
    """The images, at most ``at_once`` at a time: as float32, or integers as they are.

    With ``exactly``, for a network of a fixed batch, a piece that is too short is filled up with its own images: other
    images, such as black ones, would widen the ranges.
    """
    for batch in images:
        for start in range(0, len(batch), at_once):
            piece = np.ascontiguousarray(batch[start : start + at_once])
            piece = piece.astype(np.float32, copy=False) if piece.dtype.kind == "f" else piece
            yield np.resize(piece, (at_once, *piece.shape[1:])) if exactly else piece
