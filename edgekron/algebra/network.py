"""The algebra: every decomposition is a small network of factor tensors over the split axes of a kernel.

A dense kernel is W[f, c, h, w]: output channels, input channels, kernel height and width. A structure splits these axes
into parts, coarse to fine (f = f1 * F2 + f2, and so on), adds rank axes, and names the axes of each factor:

    Kronecker, R terms    A[r, f1, c1, h1, w1]  B[r, f2, c2, h2, w2]      W = sum over r of A_r (x) B_r
    channel SVD           A[r, f1]              B[r, c1, h1, w1]
    Tucker-2              U[f1, r1]             G[r1, r2, h1, w1]         V[r2, c1]

The first letter of an axis is its kind: ``f``, ``c``, ``h``, ``w`` for parts of the kernel's axes, ``r`` for a rank,
and ``g`` for the groups of a grouped convolution, each with a network of its own. Summing over the ranks gives W
(``expand``).

**Contraction.** Contracting the factors one after the other with the activation gives the same convolution without ever
building W. The activation carries *open* channel axes, at first g and the parts of c. For the factor at hand,

    contracted   open, in this factor, and needed by nothing later       -> input channels of a convolution
    new          in this factor, not open yet (parts of f, ranks)        -> its output channels
    batch        open, in this factor, and still needed later (g, CP's r) -> groups with filters of their own
    carried      open, and not in this factor                            -> groups that share their filters

and the factor's own h and w axes are the window, dilated by the product of the finer parts of the same axis. Each
axis is padded once, at the first stage that is spatial on the axis, and strided once, at the last such stage. Both are
exact, because every earlier stage acts on single pixels of that axis, and every later one on the padded image. At the
end the open axes are g and the parts of f. Nothing here depends on torch.

**Transposed convolution.** One of stride s with the weight V[c, f, h, w] is an ordinary convolution of stride 1 with
the kernel W[f, c, h, w] = V[c, f, -h, -w] on an image with s - 1 zeros between its pixels (``Geometry.upsample``) and
a padding of d * (k - 1) less the crop. So structures, moments and bias are those of the ordinary convolution, and so is
the contraction: pixels are spread at the first stage that is spatial on the axis, which alone runs as a transposed
convolution. All later stages are ordinary, and each takes as much of the padding as its window reaches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .arrays import Array, einsum

Pair = tuple[int, int]
#: ((before, after) along h, (before, after) along w)
Padding = tuple[Pair, Pair]

SPATIAL = ("h", "w")


class StructureError(ValueError):
    """Factors that do not form a kernel; the message quotes them."""


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input: stride, dilation and zero padding, each along (h, w).

    ``upsample`` puts zeros between the pixels first, n pixels becoming (n - 1) * upsample + 1. Raises
    ``StructureError`` for an upsampled image under a stride.
    """

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    upsample: Pair = (1, 1)

    def __post_init__(self) -> None:
        if self.transposed and self.stride != (1, 1):
            raise StructureError(f"a stride {self.stride} on pixels spread by {self.upsample} is no layer's geometry")

    @property
    def transposed(self) -> bool:
        """Whether the geometry is that of a transposed convolution."""
        return self.upsample != (1, 1)

    def output_size(self, size: Pair, kernel: Pair) -> Pair:
        """Height and width of the output for an input of ``size`` and a window of ``kernel``."""
        h, w = (
            ((n - 1) * spread + 1 + sum(pad) - step * (k - 1) - 1) // stride + 1
            for n, k, stride, step, pad, spread in zip(
                size, kernel, self.stride, self.dilation, self.padding, self.upsample, strict=True
            )
        )
        return h, w

    def crop(self, kernel: Pair) -> Padding:
        """The pixels that a transposed convolution cuts from its whole output, before and after along each axis.

        A negative number of pixels after the output stands for as many zeros behind it.
        """
        spans = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        h, w = ((span - before, span - after) for span, (before, after) in zip(spans, self.padding, strict=True))
        return h, w

    def positions(self, size: Pair, kernel: Pair) -> int:
        """How often every weight is used on an input of ``size``: once for each output pixel, in a transposed
        convolution once for each input pixel.
        """
        return math.prod(size if self.transposed else self.output_size(size, kernel))


@dataclass(frozen=True)
class Stage:
    """One contraction: a grouped convolution of the factor ``factor`` with the axes' kinds of the module's docstring.

    Every tuple of axis names is in the order of the factor's own axes, ``carried`` in the order of the open axes.
    ``geometry`` is this stage's share of the layer's stride, dilation and padding.
    """

    factor: int
    contracted: tuple[str, ...]
    new: tuple[str, ...]
    batch: tuple[str, ...]
    carried: tuple[str, ...]
    kernel: Pair
    geometry: Geometry
    sizes: Mapping[str, int]

    def size(self, kind: tuple[str, ...]) -> int:
        """Product of the sizes of the axes in ``kind``."""
        return math.prod(self.sizes[a] for a in kind)

    @property
    def pointwise(self) -> bool:
        """Whether the stage is a matrix product on single pixels: window 1x1, no stride, no padding."""
        return self.kernel == (1, 1) and self.geometry == Geometry(dilation=self.geometry.dilation)

    def macs(self, size: Pair) -> int:
        """Multiply-accumulates on an input of ``size`` (h, w), zeros of the padding counted."""
        channels = math.prod(self.size(k) for k in (self.contracted, self.new, self.batch, self.carried))
        return self.geometry.positions(size, self.kernel) * channels * math.prod(self.kernel)


@dataclass(frozen=True)
class FactorNetwork:
    """Axes of each factor and the size of each axis. The tensors live elsewhere, in the same order.

    ``factors`` is written as one string, factors separated by commas, axes by spaces: ``"r f1, r c1 h1 w1"``.
    Raises ``StructureError`` if an axis has no size, a rank is in one factor alone, or a part of the kernel in two.
    """

    factors: str
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        count: dict[str, int] = {}
        for axes in self.axes:
            if not axes or len(set(axes)) != len(axes):
                raise StructureError(f"a factor of {self.factors!r} has no axis or one twice")
            for axis in axes:
                count[axis] = count.get(axis, 0) + 1
        for axis, times in count.items():
            if axis[0] not in "gfchwr":
                raise StructureError(f"axis {axis!r} of {self.factors!r} must begin with one of g, f, c, h, w, r")
            if self.sizes.get(axis, 0) < 1:
                raise StructureError(f"axis {axis!r} of {self.factors!r} has no size in {dict(self.sizes)}")
            if axis[0] in "fchw" and times > 1:
                raise StructureError(f"axis {axis!r} of {self.factors!r} is in {times} factors; it belongs to one")
            if axis[0] == "r" and times == 1:
                raise StructureError(f"rank {axis!r} of {self.factors!r} is in one factor alone; nothing is summed")
        if unused := set(self.sizes) - set(count):
            raise StructureError(f"{self.factors!r} has no axis {sorted(unused)}")

    def __hash__(self) -> int:
        return hash((self.factors, tuple(sorted(self.sizes.items()))))

    @cached_property
    def axes(self) -> tuple[tuple[str, ...], ...]:
        """The axes of each factor."""
        return tuple(tuple(part.split()) for part in self.factors.split(","))

    def parts(self, kind: str) -> tuple[str, ...]:
        """The parts of a kernel axis ("f", "c", "h", "w", "g"), coarse to fine."""
        return tuple(sorted({a for axes in self.axes for a in axes if a[0] == kind}, key=lambda a: (len(a), a)))

    def total(self, kind: str) -> int:
        """Size of a kernel axis: the product of its parts, 1 for an axis without parts."""
        return math.prod(self.sizes[a] for a in self.parts(kind))

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape [F, C / groups, kh, kw] of the dense kernel, as torch and ONNX write it."""
        return self.total("g") * self.total("f"), self.total("c"), self.total("h"), self.total("w")

    def factor_shape(self, index: int) -> tuple[int, ...]:
        """Shape of one factor's tensor."""
        return tuple(self.sizes[a] for a in self.axes[index])

    @property
    def parameters(self) -> int:
        """Number of stored values of all factors."""
        return sum(math.prod(self.factor_shape(i)) for i in range(len(self.axes)))

    def equation(self, kinds: str = "gfchw") -> str:
        """The einsum equation from the factors to [g, parts of f, parts of c, parts of h, parts of w], or the order of
        ``kinds``.
        """
        letters = {a: chr(ord("a") + i) for i, a in enumerate(self.sizes)}
        out = [a for kind in kinds for a in self.parts(kind)]
        left = ",".join("".join(letters[a] for a in axes) for axes in self.axes)
        return f"{left}->{''.join(letters[a] for a in out)}"

    def expand(self, tensors: Sequence[Array]) -> Array:
        """The dense kernel [F, C / groups, kh, kw] from the factors: arrays of numpy, or tensors of torch."""
        return einsum(self.equation(), tensors, optimize=True).reshape(self.kernel_shape)

    def stages(self, order: Sequence[int], geometry: Geometry | None = None) -> tuple[Stage, ...]:
        """The contraction in ``order`` (a permutation of the factors' indices) as stages, first to last."""
        geometry = geometry or Geometry()
        if sorted(order) != list(range(len(self.axes))):
            raise StructureError(f"order {list(order)} is no permutation of the {len(self.axes)} factors")
        windows = [self._window(index) for index in order]
        open_axes = [*self.parts("g"), *self.parts("c")]
        stages = []
        for step, index in enumerate(order):
            axes = self.axes[index]
            later = {a for i in order[step + 1 :] for a in self.axes[i]} | set(self.parts("g"))
            channels = [a for a in axes if a[0] not in SPATIAL]
            contracted = tuple(a for a in channels if a in open_axes and a not in later)
            batch = tuple(a for a in channels if a in open_axes and a in later)
            new = tuple(a for a in channels if a not in open_axes)
            carried = tuple(a for a in open_axes if a not in axes)
            share = [self._share(windows, step, axis, geometry) for axis in (0, 1)]
            stages.append(
                Stage(
                    factor=index,
                    contracted=contracted,
                    new=new,
                    batch=batch,
                    carried=carried,
                    kernel=(windows[step][0][0], windows[step][1][0]),
                    geometry=Geometry(
                        stride=(share[0][0], share[1][0]),
                        dilation=(share[0][1], share[1][1]),
                        padding=(share[0][2], share[1][2]),
                        upsample=(share[0][3], share[1][3]),
                    ),
                    sizes=self.sizes,
                )
            )
            open_axes = [a for a in open_axes if a not in contracted] + list(new)
        return tuple(stages)

    def _window(self, index: int) -> tuple[Pair, Pair]:
        """((size, step) along h, along w): the factor's window and its dilation in units of the layer's."""
        window = []
        for kind in SPATIAL:
            parts = self.parts(kind)
            mine = [i for i, a in enumerate(parts) if a in self.axes[index] and self.sizes[a] > 1]
            if len(mine) > 1:
                raise StructureError(f"a factor of {self.factors!r} has two parts of {kind}; merge them")
            finer = parts[mine[0] + 1 :] if mine else ()
            size = self.sizes[parts[mine[0]]] if mine else 1
            window.append((size, math.prod(self.sizes[a] for a in finer)))
        return window[0], window[1]

    @staticmethod
    def _share(windows: list[tuple[Pair, Pair]], step: int, axis: int, layer: Geometry) -> tuple[int, int, Pair, int]:
        """(stride, dilation, padding, upsampling) of one stage along one axis."""
        spatial = [i for i, window in enumerate(windows) if window[axis][0] > 1]
        dilation = layer.dilation[axis] * windows[step][axis][1] if windows[step][axis][0] > 1 else 1
        if layer.transposed:
            first = spatial[0] if spatial else len(windows) - 1
            spread = layer.upsample[axis] if step == first else 1
            reach = [layer.dilation[axis] * window[axis][1] * (window[axis][0] - 1) for window in windows]
            before, after = (_portions(total, reach, first)[step] for total in layer.padding[axis])
            return 1, dilation, (before, after), spread
        first, last = (spatial[0], spatial[-1]) if spatial else (0, 0)
        return (
            layer.stride[axis] if step == last else 1,
            dilation,
            layer.padding[axis] if step == first else (0, 0),
            1,
        )

    def macs(self, order: Sequence[int], size: Pair, geometry: Geometry | None = None) -> int:
        """Multiply-accumulates of a contraction order on an input of ``size`` (h, w), for one image."""
        total = 0
        for stage in self.stages(order, geometry):
            total += stage.macs(size)
            size = stage.geometry.output_size(size, stage.kernel)
        return total

    def orders(self) -> Iterator[tuple[int, ...]]:
        """Every contraction order."""
        return itertools.permutations(range(len(self.axes)))

    def best_order(self, size: Pair, geometry: Geometry | None = None) -> tuple[int, ...]:
        """The order with the fewest multiply-accumulates; the first of equals."""
        return min(self.orders(), key=lambda order: self.macs(order, size, geometry))


def dense_macs(kernel_shape: tuple[int, int, int, int], size: Pair, geometry: Geometry | None = None) -> int:
    """Multiply-accumulates of a dense (grouped) convolution with kernel [F, C / groups, kh, kw], for one image."""
    return (geometry or Geometry()).positions(size, kernel_shape[2:]) * math.prod(kernel_shape)


def _portions(total: int, reach: Sequence[int], first: int) -> list[int]:
    """A padding shared out among stages, no more to each than its window reaches; the rest to stage ``first``."""
    portions: list[int] = []
    for one in reach:
        portions.append(min(total - sum(portions), one))
    portions[first] += total - sum(portions)
    return portions
