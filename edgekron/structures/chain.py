"""The sites of a chain of cores (tensor train, tensor ring): which parts of the kernel's axes each core has.

``h 3, w 3 | c 4, f 4 | c 8, f 8`` has three sites: the window, and two that split inputs and outputs into 4 * 8, coarse
to fine in the order of the sites. ``c 64 | h 3 | w 3 | f 128`` is the chain that runs as plain convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from edgekron.algebra import StructureError

from .structure import KernelShape

#: Cores at most: every order of contracting them is compared.
LONGEST = 6

#: One site: pairs of an axis' kind and the size of the part.
Site = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CoreChain:
    """The sites in order, for a kernel in ``groups`` groups.

    Raises ``StructureError`` if f or c is in no site, h or w in several, or the sites are too few or too many.
    """

    sites: tuple[Site, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        kinds = [kind for site in self.sites for kind, _ in site]
        if not {"f", "c"} <= set(kinds) or kinds.count("h") > 1 or kinds.count("w") > 1:
            raise StructureError(f"a chain needs parts of f and of c, and h and w at most once: {self}")
        if not 2 <= len(self.sites) <= LONGEST:
            raise StructureError(f"a chain has from 2 to {LONGEST} cores: {self}")

    @property
    def kernel_shape(self) -> KernelShape:
        """[F, C / groups, kh, kw]"""
        f, c, h, w = (math.prod(n for site in self.sites for k, n in site if k == kind) for kind in "fchw")
        return self.groups * f, c, h, w

    @property
    def dims(self) -> tuple[int, ...]:
        """Number of elements of each site."""
        return tuple(math.prod(n for _, n in site) for site in self.sites)

    @cached_property
    def axes(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The named axes of each site, such as ("c1", 4), with their sizes."""
        count = dict.fromkeys("fchw", 0)
        named = []
        for site in self.sites:
            names = []
            for kind, size in site:
                count[kind] += 1
                names.append((f"{kind}{count[kind]}", size))
            named.append(tuple(names))
        return tuple(named)

    def tensor(self, kernel: Tensor) -> Tensor:
        """``kernel`` [F, C / groups, kh, kw] as [g, site 1, site 2, ...]."""
        if tuple(kernel.shape) != self.kernel_shape:
            raise StructureError(f"the chain {self} is for a kernel {self.kernel_shape}, not {tuple(kernel.shape)}")
        flat = [axis for site in self.axes for axis in site]
        natural = sorted(flat, key=lambda axis: ("fchw".index(axis[0][0]), int(axis[0][1:])))
        view = kernel.reshape(self.groups, *[size for _, size in natural])
        order = [1 + natural.index(axis) for axis in flat]
        return view.permute(0, *order).reshape(self.groups, *self.dims)

    def __str__(self) -> str:
        text = " | ".join(", ".join(f"{kind} {size}" for kind, size in site) for site in self.sites)
        return text if self.groups == 1 else f"{text} | groups {self.groups}"

    @classmethod
    def parse(cls, text: str, example: str) -> CoreChain:
        """The chain that ``str`` writes; raises ``StructureError`` that shows an ``example``."""
        sites: list[Site] = []
        groups = 1
        for part in text.split("|"):
            words = [axis.split() for axis in part.split(",")]
            if any(len(w) != 2 or not w[1].isdecimal() or int(w[1]) < 1 for w in words):
                raise StructureError(f"{text!r} is no chain of cores; write it as {example!r}")
            if len(words) == 1 and words[0][0] == "groups" and groups == 1:
                groups = int(words[0][1])
            elif all(w[0] in tuple("fchw") for w in words):
                sites.append(tuple((kind, int(size)) for kind, size in words))
            else:
                raise StructureError(f"{text!r} is no chain of cores; write it as {example!r}")
        return cls(tuple(sites), groups)


@dataclass(frozen=True)
class OfChain:
    """A structure whose kernel shape and text are those of its ``chain``: tensor trains and rings."""

    chain: CoreChain

    @property
    def kernel_shape(self) -> KernelShape:
        """[F, C / groups, kh, kw]"""
        return self.chain.kernel_shape

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return self.chain.groups

    def __str__(self) -> str:
        return str(self.chain)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The structure that ``str`` writes; raises ``StructureError``."""
        return cls(CoreChain.parse(text, "c 64 | h 3 | w 3 | f 128"))


def pipeline(kernel_shape: KernelShape, groups: int) -> CoreChain:
    """The chain c | h | w | f, whose cores are the convolutions 1x1, kh x 1, 1 x kw, 1x1."""
    f, c, h, w = kernel_shape
    window: Sequence[Site] = [((kind, n),) for kind, n in (("h", h), ("w", w)) if n > 1]
    return CoreChain(((("c", c),), *window, (("f", f // groups),)), groups)
