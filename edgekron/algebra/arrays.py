"""The few operations that the algebra needs of arrays of numpy and of tensors of torch alike.

torch is imported where a tensor is given and nowhere else. Tensors stay differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", "np.ndarray", "torch.Tensor")


def einsum(equation: str, operands: Sequence[Array], *, optimize: bool) -> Array:
    """The einsum of ``operands``; ``optimize`` lets numpy choose the order of its products, as torch always does."""
    if isinstance(operands[0], np.ndarray):
        return np.asarray(np.einsum(equation, *operands, optimize=optimize))
    import torch

    return torch.einsum(equation, *operands)


def constant(kind: str, size: int, like: Array) -> Array:
    """An identity matrix ("eye") or a vector of ones ("ones"), of the type and on the device of ``like``."""
    if isinstance(like, np.ndarray):
        return np.eye(size, dtype=like.dtype) if kind == "eye" else np.ones(size, like.dtype)
    import torch

    made = torch.eye if kind == "eye" else torch.ones
    return made(size, dtype=like.dtype, device=like.device)


def flipped(array: Array, axes: tuple[int, ...]) -> Array:
    """The array taken backwards along ``axes``."""
    if isinstance(array, np.ndarray):
        return np.flip(array, axes)
    return array.flip(axes)


def permuted(array: Array, order: tuple[int, ...]) -> Array:
    """The array with its axes in another order."""
    if isinstance(array, np.ndarray):
        return array.transpose(order)
    return array.permute(order)


def contiguous(array: Array) -> Array:
    """An array of numpy with its values in order in memory; a tensor as it is."""
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array)
    return array
