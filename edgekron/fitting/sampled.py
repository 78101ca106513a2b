"""Moments of layers with so many inputs that the matrix xx [d, d] would be larger than the network.

Such a layer is known by n < d rows X [n, d] and Y [n, F] instead: xx = X^T X + p I and yx = Y^T X + P, where p and P
are what the moments lean to. All that a fit needs follows from products with X and from the small matrix X X^T
[n, n], in memory and time that are linear in d:

    error of K:       |Y - X K^T|^2 + p |K|^2 - 2 <K, P> + const
    least squares:    K + E^T (X X^T + p I)^-1 X + (D - D X^T (X X^T + p I)^-1 X) / p
                      with E = Y - X K^T and D = P - p K, for any K
    whitening:        the symmetric roots of ``edgekron.fitting.roots``

Up to n patches are rows of their own, and the moments are exact. Further patches are added to these rows with random
signs: then X^T X is right in the mean (a count sketch: Charikar, Chen, Farach-Colton, *Finding frequent items in data
streams*, 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgekron.processes import ALONE, Processes

from .moments import PIECE, ROUNDING, Moments, MomentSums
from .roots import RIDGE, Root, Symmetric, Triangular, cholesky, products

#: Inputs above which a layer is known by rows. Up to this number, xx takes at most half a gigabyte.
WIDE = 8192
#: Elements of all rows, and how many rows there are at most and at least.
SIZE, MOST_ROWS, LEAST_ROWS = 2**24, 2048, 64
#: Rows at most from which the root of a part of the input axes is made.
ROOT_ROWS = 4096


@dataclass(frozen=True)
class SampledMoments:
    """Centred moments of one wide layer.

    The rows ``x`` [g, n, d] and ``y`` [g, n, F / g], float32, are divided by the root of the number of patches.
    ``gram`` [g, n, n] is x x^T, and ``level`` [g] is p, both float64. ``pull`` [g, F / g, d] is P, None for zero.
    ``yy``, the outputs' variance summed over channels, and the means ``mean_x`` [g, d] and ``mean_y`` [F] are float64;
    ``white`` is what the moments lean to would add to ``yy``.
    """

    x: Tensor
    y: Tensor
    gram: Tensor
    level: Tensor
    yy: float
    mean_x: Tensor
    mean_y: Tensor
    count: int
    pull: Tensor | None = None
    white: float = 0.0

    def error(self, kernel: Tensor) -> float:
        """Error of the outputs of ``kernel`` [F, C / groups, kh, kw] relative to their variance (both summed)."""
        k = self._matrix(kernel)
        lost = float((self.y - self.x @ k.mT).double().square().sum())
        whole = self.yy + self.white
        value = lost + whole - float(self.y.double().square().sum())
        value += float((self.level * k.square().sum((1, 2), dtype=torch.float64)).sum())
        if self.pull is not None:
            value -= 2 * float((k * self.pull).sum(dtype=torch.float64))
        return max(value, 0.0) / max(whole, 1e-30)

    def bias(self, kernel: Tensor) -> Tensor:
        """The bias [F] that makes the mean of ``kernel``'s outputs the mean of y."""
        k = self._matrix(kernel)
        return self.mean_y - (k @ self.mean_x.float()[..., None]).double().reshape(-1)

    def lean(self, kernel: Tensor, strength: float) -> SampledMoments:
        """Moments as if a share ``strength`` of white inputs had gone through the original ``kernel``.

        A fit then leans towards that kernel in directions about which the data say little.
        """
        k = self._matrix(kernel)
        level = float(strength * self._variance().mean())
        pull = k * level if self.pull is None else self.pull.add(k, alpha=level)
        white = self.white + level * float((k * k).sum())
        return replace(self, level=self.level + level, pull=pull, white=white)

    def gradient(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """<K xx, K> / 2 - <K, yx> but for a constant, and its derivative in the shape of ``kernel``."""
        k = self._matrix(kernel.detach())
        lost = self.x @ k.mT - self.y
        level = self.level.float()[:, None, None]
        value = lost.square().sum() / 2 + (level * k.square()).sum() / 2
        gradient = (lost.mT @ self.x).add_(k * level)
        if self.pull is not None:
            value -= torch.dot(k.flatten(), self.pull.flatten())
            gradient -= self.pull
        return value, gradient.reshape(kernel.shape)

    def output_products(self, m: Tensor) -> Tensor:
        """M (I (x) xx) M^T [g, f1, f1] in float64, with the ridge of a whitening, for M [g, f1, f2 d]."""
        groups, f1, _ = m.shape
        d = self.x.shape[-1]
        rows = m.reshape(groups, -1, d)
        images = torch.zeros(groups, rows.shape[1], self.x.shape[1], dtype=torch.float64)
        own = torch.zeros(groups, f1, f1, dtype=torch.float64)
        step = max(1, PIECE // (groups * max(rows.shape[1], self.x.shape[1])))
        for start in range(0, d, step):
            columns = rows[..., start : start + step].double()
            images += columns @ self.x[..., start : start + step].double().mT
            own += columns.reshape(groups, f1, -1) @ columns.reshape(groups, f1, -1).mT
        images = images.reshape(groups, f1, -1)
        return images @ images.mT + (self.level + self._ridge())[:, None, None] * own

    def least_squares(self, kernel: Tensor) -> Tensor:
        """K* = yx xx^-1, leaning to the original ``kernel`` where xx has no variance. Shape and type of ``kernel``."""
        k = self._matrix(kernel)
        total = self.level + self._ridge()
        lower = torch.linalg.cholesky(self.gram + torch.diag_embed(total[:, None].expand(self.gram.shape[:2])))
        lost = torch.cholesky_solve((self.y - self.x @ k.mT).double(), lower).float()
        solved = k + lost.mT @ self.x
        if self.pull is not None:
            rest = (self.pull - k * self.level.float()[:, None, None]) / total.float()[:, None, None]
            inner = torch.cholesky_solve((self.x @ rest.mT).double(), lower).float()
            solved += rest - inner.mT @ self.x
        return solved.reshape(kernel.shape).to(kernel.dtype)

    def roots(self, sizes: Sequence[int], shares: Sequence[Sequence[int]], sweeps: int = 2) -> list[Root]:
        """Roots of S_t [g, d_t, d_t], with xx ~ (x) S_t: alternating least squares, from identities.

        ``sizes`` are those of the input axes that d runs over; ``shares`` are the positions of each factor's own ones.
        """
        dims = [math.prod(sizes[i] for i in share) for share in shares]
        busy = [t for t, d in enumerate(dims) if d > 1]
        one = torch.ones(len(self.x), 1, 1)
        found: list[Root] = [Triangular(one) for _ in dims]
        if len(busy) == 1:
            found[busy[0]] = Symmetric.of(self.x, self.gram, self.level + self._ridge())
            return found
        parts: list[Tensor | Symmetric] = [torch.eye(d).repeat(len(self.x), 1, 1) for d in dims]
        for _ in range(sweeps):
            for t in busy:
                others = {u: parts[u] for u in busy if u != t}
                parts[t] = self._part(sizes, shares, t, others)
        for t in busy:
            part = parts[t]
            found[t] = part if isinstance(part, Symmetric) else Triangular(cholesky(part)[0].float())
        return found

    def _part(
        self, sizes: Sequence[int], shares: Sequence[Sequence[int]], t: int, others: dict[int, Tensor | Symmetric]
    ) -> Tensor | Symmetric:
        """The update of S_t, whole if it is small, else its root."""
        d = math.prod(sizes[i] for i in shares[t])
        groups, n, _ = self.x.shape
        halves = {u: _root(part) for u, part in others.items()}
        norm = torch.stack([_squares(part).sqrt() for part in others.values()]).prod(0).clamp_min(1e-30)
        trace = torch.stack([_trace(part) for part in others.values()]).prod(0)
        level = self.level * trace / norm.square()
        whole = d <= WIDE
        # A root needs no more rows than ``ROOT_ROWS``.
        step = 1 if whole else -(-n * self.x.shape[2] // d // ROOT_ROWS)
        kept = self.x[:, ::step]
        total = torch.zeros(groups, d, d) if whole else torch.empty(0)
        rows = []
        at_once = max(1, PIECE // self.x.shape[2])
        for start in range(0, kept.shape[1], at_once):
            piece = kept[:, start : start + at_once].reshape(groups, -1, *sizes)
            for u, half in halves.items():
                piece = _along(piece, [2 + i for i in shares[u]], half)
            row = _unfolded(piece, [2 + i for i in shares[t]])
            if whole:
                total += row.mT @ row
            else:
                rows.append(row)
        scale = norm.float()[:, None, None]
        if whole:
            total = (total + total.mT) / (2 * scale * scale)
            total.diagonal(dim1=-2, dim2=-1).add_(level.float()[:, None])
            return total
        joined = torch.cat(rows, 1).mul_(math.sqrt(step) / scale)
        squares = joined.square().sum((1, 2), dtype=torch.float64)
        return Symmetric.of(joined, products(joined), level + RIDGE * (level + squares / d))

    def _matrix(self, kernel: Tensor) -> Tensor:
        return kernel.float().reshape(len(self.x), -1, self.x.shape[2])

    def _variance(self) -> Tensor:
        """The mean of the diagonal of xx [g]."""
        return self.gram.diagonal(dim1=-2, dim2=-1).sum(-1) / self.x.shape[2] + self.level

    def _ridge(self) -> Tensor:
        return RIDGE * self._variance().clamp_min(1e-30)


def _root(part: Tensor | Symmetric) -> Root:
    """A root L of a part S of the Kronecker product: S = L L^T."""
    if isinstance(part, Symmetric):
        return part
    values, vectors = torch.linalg.eigh(part.double())
    return Triangular(((vectors * values.clamp_min(0.0).sqrt()[:, None, :]) @ vectors.mT).float())


def _squares(part: Tensor | Symmetric) -> Tensor:
    """The sum of squares of S [g]."""
    if isinstance(part, Tensor):
        return part.double().square().sum((1, 2))
    return part.inner.double().pow(4).sum(1) + part.outer.double().pow(4) * (part.size - part.v.shape[1])


def _trace(part: Tensor | Symmetric) -> Tensor:
    """The sum of the diagonal of S [g]."""
    if isinstance(part, Tensor):
        return part.diagonal(dim1=-2, dim2=-1).double().sum(-1)
    return part.inner.double().square().sum(1) + part.outer.double().square() * (part.size - part.v.shape[1])


def _unfolded(view: Tensor, axes: list[int]) -> Tensor:
    """``view`` [g, n, ...] as rows [g, r, d] of the joint ``axes``."""
    rest = [i for i in range(1, view.ndim) if i not in axes]
    moved = view.permute(0, *rest, *axes)
    return moved.reshape(len(view), -1, math.prod(view.shape[i] for i in axes))


def _along(view: Tensor, axes: list[int], root: Root) -> Tensor:
    """``view`` [g, n, ...] with its joint ``axes`` multiplied by a root."""
    rest = [i for i in range(1, view.ndim) if i not in axes]
    order = [0, *rest, *axes]
    product = root.times(_unfolded(view, axes), inverse=False)
    return product.reshape([view.shape[i] for i in order]).permute([order.index(i) for i in range(view.ndim)])


class SampledSums:
    """Accumulates the rows of a wide layer, ``rows`` of them, image by image."""

    def __init__(self, groups: int, d: int, outputs: int, rows: int) -> None:
        self._x = torch.zeros(groups, rows, d)
        self._y = torch.zeros(rows, outputs)
        self._signs, self._filled = torch.zeros(rows), torch.zeros(rows)
        self._sum_x = torch.zeros(groups, d, dtype=torch.float64)
        self._sum_y = torch.zeros(outputs, dtype=torch.float64)
        self._squares = torch.zeros(groups + 2, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor, number: int = 0) -> None:
        """Patches x [m, g, d] and the outputs y [m, F] they should give, float32, of the image ``number``.

        The number tells which rows the patches go to, so that several processes fill the same rows.
        """
        rows = len(self._y)
        places = number * len(x) + torch.arange(len(x))
        signs = _signs(places, rows)
        self._x.index_add_(1, places % rows, x.transpose(0, 1) * signs[:, None])
        self._y.index_add_(0, places % rows, y * signs[:, None])
        self._signs.index_add_(0, places % rows, signs)
        self._filled[places % rows] = 1.0
        self._sum_x += x.sum(0, dtype=torch.float64)
        self._sum_y += y.sum(0, dtype=torch.float64)
        self._squares[:-2] += torch.stack([one.square().sum(dtype=torch.float64) for one in x.unbind(1)])
        self._squares[-2] += y.square().sum(dtype=torch.float64)
        self._squares[-1] += len(x)

    def finish(self, processes: Processes = ALONE) -> SampledMoments:
        """The centred moments of all patches that all ``processes`` have added; the sums are used up."""
        for sums in (self._x, self._y, self._signs, self._filled, self._sum_x, self._sum_y, self._squares):
            processes.sum(sums)
        self._close_ranks()
        groups, _, d = self._x.shape
        count = int(self._squares[-1])
        mean_x, mean_y = self._sum_x / count, self._sum_y / count
        for group, mean in enumerate(mean_x.float()):
            self._x[group].addr_(self._signs, mean, alpha=-1)
        y = (self._y - self._signs[:, None] * mean_y.float()) / math.sqrt(count)
        x = self._x.div_(math.sqrt(count))
        y = y.reshape(len(y), groups, -1).transpose(0, 1).contiguous()
        squares = self._squares / count
        # What rounding leaves of inputs or outputs that never change must not look like a variance.
        level = ROUNDING * squares[:-2] / d
        yy = max(float(y.double().square().sum()), ROUNDING * float(squares[-2]))
        return SampledMoments(x, y, products(x), level, yy, mean_x, mean_y, count)

    def _close_ranks(self) -> None:
        """Drops rows without a patch, in place."""
        filled = self._filled.nonzero().flatten().tolist()
        for new, old in enumerate(filled):
            for array, axis in ((self._x, 1), (self._y, 0), (self._signs, 0)):
                array.select(axis, new).copy_(array.select(axis, old))
        self._x, self._y, self._signs = self._x[:, : len(filled)], self._y[: len(filled)], self._signs[: len(filled)]


def _signs(places: Tensor, rows: int) -> Tensor:
    """1 for the first patch of each row, then 1 or -1 by a hash of the patch's place (Fibonacci hashing)."""
    mixed = places * -7046029254386353131
    mixed = (mixed ^ (mixed >> 29)) * -4658895280553007687
    return torch.where(places < rows, 1, 1 - 2 * ((mixed >> 40) & 1)).float()


def rows_of(groups: int, d: int, outputs: int) -> int | None:
    """How many rows stand for a layer of ``groups`` times ``d`` inputs; None for a layer that is not wide.

    The rows take 64 MiB, or as much as the weights.
    """
    if d <= WIDE:
        return None
    return max(LEAST_ROWS, min(MOST_ROWS, max(SIZE // (groups * d), outputs // groups)))


def sums_of(groups: int, d: int, outputs: int) -> MomentSums | SampledSums:
    """Sums for the moments of a layer: of its rows where it is wide."""
    rows = rows_of(groups, d, outputs)
    return MomentSums(groups, d, outputs) if rows is None else SampledSums(groups, d, outputs, rows)


#: Of a layer of any width.
AnyMoments = Moments | SampledMoments
