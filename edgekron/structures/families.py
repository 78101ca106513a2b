"""Every method by its name. A kernel without a window is a matrix: Tucker, CP and rings are then its SVD."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import cp, kronecker, low_rank, tensor_ring, tensor_train, tucker
from .structure import Family, KernelShape, Structure


def _with_matrices(
    parse: Callable[[str], Structure], templates: Callable[[KernelShape, int], Iterator[Structure]]
) -> Family:
    """A family that takes the pair of a matrix, written as a Kronecker shape, for a kernel without a window."""

    def either(text: str) -> Structure:
        return kronecker.KroneckerShape.parse(text) if "x" in text else parse(text)

    def or_matrix(kernel_shape: KernelShape, groups: int) -> Iterator[Structure]:
        yield from (
            low_rank.channel(kernel_shape, groups) if kernel_shape[2:] == (1, 1) else templates(kernel_shape, groups)
        )

    return Family(either, or_matrix)


FAMILIES: dict[str, Family] = {
    "kronecker": Family(kronecker.KroneckerShape.parse, kronecker.templates),
    "low-rank": Family(kronecker.KroneckerShape.parse, low_rank.vertical_horizontal),
    "channel-svd": Family(kronecker.KroneckerShape.parse, low_rank.channel),
    "tucker": _with_matrices(tucker.Tucker2.parse, tucker.templates),
    "cp": _with_matrices(cp.CP.parse, cp.templates),
    "tt": Family(tensor_train.TensorTrain.parse, tensor_train.pipelines),
    "tt-matrix": Family(tensor_train.TensorTrain.parse, tensor_train.matrix_trains, stores=True),
    "tr": _with_matrices(tensor_ring.TensorRing.parse, tensor_ring.templates),
}
