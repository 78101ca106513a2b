"""Structures: each turns a dense kernel into a ``FactorNetwork`` with its closed-form first factors.

``FAMILIES`` has every method by its name. A kernel without a window is a matrix: Tucker and CP are then its SVD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import cp, kronecker, low_rank, tensor_ring, tensor_train, tucker
from .cp import CP
from .kronecker import KroneckerShape, shapes
from .structure import Decomposition, Family, KernelShape, Ranks, Spectrum, Structure
from .tensor_ring import TensorRing
from .tensor_train import TensorTrain
from .tucker import Tucker2

__all__ = [
    "CP",
    "FAMILIES",
    "Decomposition",
    "Family",
    "KroneckerShape",
    "Ranks",
    "Spectrum",
    "Structure",
    "TensorRing",
    "TensorTrain",
    "Tucker2",
    "shapes",
]


def _with_matrices(
    parse: Callable[[str], Structure], templates: Callable[[KernelShape, int], Iterator[Structure]]
) -> Family:
    """A family that takes the pair of a matrix, written as a Kronecker shape, for a kernel without a window."""

    def either(text: str) -> Structure:
        return KroneckerShape.parse(text) if "x" in text else parse(text)

    def or_matrix(kernel_shape: KernelShape, groups: int) -> Iterator[Structure]:
        yield from (
            low_rank.channel(kernel_shape, groups) if kernel_shape[2:] == (1, 1) else templates(kernel_shape, groups)
        )

    return Family(either, or_matrix)


FAMILIES: dict[str, Family] = {
    "kronecker": Family(KroneckerShape.parse, kronecker.templates),
    "low-rank": Family(KroneckerShape.parse, low_rank.vertical_horizontal),
    "channel-svd": Family(KroneckerShape.parse, low_rank.channel),
    "tucker": _with_matrices(Tucker2.parse, tucker.templates),
    "cp": _with_matrices(CP.parse, cp.templates),
    "tt": Family(TensorTrain.parse, tensor_train.pipelines),
    "tt-matrix": Family(TensorTrain.parse, tensor_train.matrix_trains, stores=True),
    "tr": _with_matrices(TensorRing.parse, tensor_ring.templates),
}
