"""Square roots L of positive definite matrices S = L L^T, by which factors are whitened.

Small matrices are stored whole, and have a triangular root (Cholesky). A matrix S = R^T R + p I of d dimensions that is
known by r < d rows R has a symmetric root, which needs r * d values alone: with R = U diag(s) V^T,

    L = sqrt(p) (I - V^T V) + V^T diag(sqrt(s^2 + p)) V

A whitening is free to take any of the roots, because they differ by a rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

#: Share of the mean variance added to the diagonal of each matrix.
RIDGE = 1e-5
#: Dimensions above which Cholesky runs in float32: half the memory and time.
LARGE = 2048
#: Squared singular value of rows, over the largest one, below which a direction is rounding.
NEGLIGIBLE = 1e-12
#: Columns of a wide matrix that are converted to float64 at once.
COLUMNS = 4096


class Root(Protocol):
    """One root for each of g groups."""

    @property
    def size(self) -> int:
        """Dimensions d."""
        ...

    @property
    def groups(self) -> int:
        """How many roots."""
        ...

    def shared(self) -> Root:
        """A single root that stands for those of all groups."""
        ...

    def times(self, rows: Tensor, *, inverse: bool) -> Tensor:
        """``rows`` [g, n, d] times L, or times its inverse."""
        ...


@dataclass(frozen=True)
class Triangular:
    """The Cholesky factors ``lower`` [g, d, d], float32.

    float32 is enough for a change of coordinates that is undone afterwards.
    """

    lower: Tensor

    @property
    def size(self) -> int:
        """Dimensions d."""
        return self.lower.shape[-1]

    @property
    def groups(self) -> int:
        """How many roots."""
        return len(self.lower)

    def shared(self) -> Triangular:
        """The mean over groups."""
        return Triangular(self.lower.mean(0, keepdim=True))

    def times(self, rows: Tensor, *, inverse: bool) -> Tensor:
        """``rows`` [g, n, d] times L, or times its inverse."""
        if inverse:
            return cast(Tensor, torch.linalg.solve_triangular(self.lower, rows, upper=False, left=False))
        return rows @ self.lower


@dataclass(frozen=True)
class Symmetric:
    """The symmetric roots of R^T R + p I, from orthonormal directions ``v`` [g, r, d] with the roots ``inner`` [g, r],
    and the roots ``outer`` [g] of all directions perpendicular to these.
    """

    v: Tensor
    inner: Tensor
    outer: Tensor

    @classmethod
    def of(cls, rows: Tensor, gram: Tensor, level: Tensor) -> Symmetric:
        """The roots for rows R [g, r, d] with products ``gram`` = R R^T [g, r, r], and p = ``level`` [g] (float64)."""
        squares, u = torch.linalg.eigh(gram)
        kept = squares > NEGLIGIBLE * squares[:, -1:]
        # A direction that is rounding gets the root of those perpendicular to all rows.
        scaled = torch.where(kept, squares.clamp_min(1e-300).rsqrt(), 0.0)[:, None, :] * u
        v = torch.empty_like(rows)
        for start in range(0, rows.shape[2], COLUMNS):
            part = slice(start, start + COLUMNS)
            v[..., part] = (scaled.mT @ rows[..., part].double()).float()
        inner = (torch.where(kept, squares, 0.0) + level[:, None]).sqrt()
        return cls(v, inner.float(), level.sqrt().float())

    @property
    def size(self) -> int:
        """Dimensions d."""
        return self.v.shape[-1]

    @property
    def groups(self) -> int:
        """How many roots."""
        return len(self.v)

    def shared(self) -> Symmetric:
        """The root of the groups' mean matrix."""
        squares = self.inner.double().square() - self.outer.double().square()[:, None]
        weighted = self.v * (squares.clamp_min(0.0) / self.groups).sqrt().float()[..., None]
        rows = weighted.reshape(1, -1, self.size)
        return Symmetric.of(rows, products(rows), self.outer.double().square().mean(0, keepdim=True))

    def times(self, rows: Tensor, *, inverse: bool) -> Tensor:
        """``rows`` [g, n, d] times L, or times its inverse."""
        inner, outer = (1 / self.inner, 1 / self.outer) if inverse else (self.inner, self.outer)
        along = rows @ self.v.mT
        rest = rows - along @ self.v
        # Once more: what rounding leaves along v would be magnified by the small variance of the other directions.
        rest -= (rest @ self.v.mT) @ self.v
        return rest.mul_(outer[:, None, None]).add_((along * inner[:, None, :]) @ self.v)


def cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of ``matrix`` [g, d, d] plus a ridge, and the ridge [g, 1].

    The ridge grows until rounding no longer makes the matrix indefinite; in the end, to the largest sum of a row, which
    is enough for a matrix of nothing but rounding. In float64 up to ``LARGE`` dimensions, above in float32; one copy of
    the matrix is made, and factorized in place.
    """
    dtype = torch.float64 if matrix.shape[-1] <= LARGE else torch.float32
    level = matrix.diagonal(dim1=-2, dim2=-1).to(dtype).mean(-1, keepdim=True).clamp_min(1e-30)
    for power in range(7):
        ridge = RIDGE * 10.0**power * level if power < 6 else 2 * matrix.abs().sum(-1).amax(-1, keepdim=True).to(dtype)
        # LAPACK works on columns; the matrix is symmetric, so its transpose serves.
        factor = matrix.to(dtype, copy=True, memory_format=torch.contiguous_format).mT
        factor.diagonal(dim1=-2, dim2=-1).add_(ridge)
        info = torch.zeros(len(matrix), dtype=torch.int32)
        torch.linalg.cholesky_ex(factor, out=(factor, info))
        if not info.any():
            return factor, ridge
        del factor
    raise FloatingPointError("the second moments are not finite")


def products(rows: Tensor) -> Tensor:
    """R R^T [g, r, r] of rows R [g, r, d], in float64: sums in float32 would be worse than a ridge."""
    total = torch.zeros(len(rows), rows.shape[1], rows.shape[1], dtype=torch.float64)
    for start in range(0, rows.shape[2], COLUMNS):
        piece = rows[..., start : start + COLUMNS].double()
        total.baddbmm_(piece, piece.mT)
    return total
