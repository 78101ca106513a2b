"""The inputs that versions of a network are compared on: one shape that all versions take, and named cases of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from edgekron.errors import UserError
from edgekron.graph import NetworkInput

from .links import Named


def cases(
    shape: Sequence[int], images: np.ndarray | None, seed: int = 0, dtype: str = "float32"
) -> Iterator[tuple[str, np.ndarray]]:
    """Named inputs [N, *shape]: batches of 1, 2 and 3 random images, extreme ones, and real images where given.

    Integers are drawn from the whole range of an image's bytes, and are never negative.
    """
    rng = np.random.default_rng(seed)
    real = np.dtype(dtype).kind == "f"
    for batch in (1, 2, 3):
        yield f"random, batch {batch}", _random(rng, (batch, *shape), dtype)
    yield "zeros", np.zeros((1, *shape), dtype)
    if real:
        yield "large (x100)", (100 * rng.standard_normal((1, *shape))).astype(dtype)
    else:
        yield "largest", np.full((1, *shape), min(_BYTE, _largest(dtype)), dtype)
    impulse = np.zeros((1, *shape), dtype)
    impulse[(0, *(n // 2 for n in shape))] = 1
    yield "impulse", impulse
    if images is not None:
        yield f"{len(images)} images", images


#: The largest value of an image's pixel.
_BYTE = 255


def _largest(dtype: str) -> int:
    return 1 if dtype == "bool" else int(np.iinfo(dtype).max)


def _random(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, min(_BYTE, _largest(dtype)), shape, endpoint=True).astype(dtype)


def main_case(inputs: Sequence[tuple[str, np.ndarray]], *, images: bool) -> int:
    """The index of the case that layers are compared on.

    With ``images`` the last case, which then holds real images; else the first of the cases with most images.
    """
    return len(inputs) - 1 if images else max(range(len(inputs)), key=lambda index: len(inputs[index][1]))


def common_shape(versions: Sequence[Named], given: Sequence[int] | None = None) -> tuple[int, ...]:
    """The input [C, H, W] that all versions take: a size that one version leaves open is that of another, or ``given``.

    Raises ``UserError`` when two versions differ, when ``given`` is not what they take, or when a size stays open.
    """
    shape = _agreed(versions)
    if given is not None:
        if not _fit(shape, given):
            raise UserError(f"{versions[0].title} takes {list(shape)}, not {list(given)}; give --input-shape to match.")
        shape = tuple(given)
    if not all(n > 0 for n in shape):
        raise UserError(
            "the size of the input is open in every version; give --input-shape C,H,W, or the folder that compress "
            "wrote, which knows one."
        )
    return shape


def check_cases(versions: Sequence[Named], inputs: Iterable[tuple[str, np.ndarray]]) -> None:
    """Raises ``UserError`` when versions differ in what they take, or when the arrays of a case do not fit them."""
    shape = _agreed(versions)
    for _, x in inputs:
        if not _fit(shape, x.shape[1:]):
            raise UserError(f"the images are {list(x.shape[1:])}; the network takes {list(shape)}.")


def _agreed(versions: Sequence[Named]) -> tuple[int, ...]:
    """The input [C, H, W] of all versions, 0 for a size that all leave open. Raises ``UserError`` when two differ."""
    for one, two in combinations(versions, 2):
        shapes = one.version.input_shape, two.version.input_shape
        if not _fit(*shapes):
            raise UserError(
                f"{one.title} takes {list(shapes[0])} and {two.title} {list(shapes[1])}; give versions of one network."
            )
    return tuple(max(sizes) for sizes in zip(*(entry.version.input_shape for entry in versions), strict=True))


def _fit(one: Sequence[int], two: Sequence[int]) -> bool:
    """Whether two shapes, in which 0 stands for an open size, can be of one input."""
    return len(one) == len(two) and all(a == b or not a or not b for a, b in zip(one, two, strict=True))


def common_inputs(versions: Sequence[Named], wanted: Sequence[int] | None = None) -> tuple[NetworkInput, ...]:
    """The inputs that all versions take, as the first one names them; see ``common_shape``."""
    first = next((v.version.inputs for v in versions if v.version.kind != "tflite"), versions[0].version.inputs)
    return (replace(first[0], shape=common_shape(versions, wanted)), *first[1:])
