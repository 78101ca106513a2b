"""Which ranks are worth a try, and rules that choose them from a spectrum.

Runtimes compute channels in tiles, so ranks are rounded down to numbers that run well; this module alone rounds them.

A structure with several ranks has a path: at every threshold, each rank is the smallest whose unfolding leaves out at
most as much energy as the threshold says. The total error of Tucker and of tensor trains is at most the sum of the
tails (De Lathauwer; Oseledets), so equal tails share the error evenly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from edgekron.structures import Ranks, Spectrum, Structure

#: Runtimes pack output channels in tiles: ranks are rounded down to a multiple of the largest of these not above half
#: of them.
MULTIPLES = (16, 8, 4, 2, 1)
#: Thresholds along the path of a structure with several ranks.
STEPS = 48


def rounded(rank: float) -> int:
    """``rank`` rounded down to what runtimes run well, at least one."""
    whole = max(1, int(rank))
    multiple = next((m for m in MULTIPLES if 2 * m <= whole), 1)
    return whole - whole % multiple


def raised(rank: int, full: int) -> int:
    """The next number not below ``rank`` that runs well, at most ``full``; ``full`` itself is not rounded."""
    return next((wider for wider in range(rank, full) if rounded(wider) == wider), full)


def path(structure: Structure, spectra: Sequence[Spectrum]) -> list[Ranks]:
    """Rank tuples from the least to nearly the full ones, rounded, each once."""
    largest = structure.max_ranks
    if len(largest) == 1 or not spectra:
        found = [tuple(min(rounded(r), m) for m in largest) for r in range(1, max(largest) + 1)]
    else:
        tails = [spectrum.tail() for spectrum in spectra]
        total = max(float(tail[0]) for tail in tails)
        found = [
            tuple(min(rounded(_smallest(tail, total * level)), m) for tail, m in zip(tails, largest, strict=True))
            for level in np.geomspace(0.99, 1e-5, STEPS)
        ]
    return list(dict.fromkeys(found))


def _smallest(tail: torch.Tensor, allowed: float) -> int:
    """The smallest rank of at least one whose tail is not above ``allowed``."""
    return max(1, int((tail > allowed).sum()))


class RankRule(Protocol):
    """Chooses the ranks of one layer from the spectra of its decomposition, whatever the other layers do."""

    @property
    def name(self) -> str:
        """For messages and plans."""
        ...

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose ranks the rule can choose."""
        ...

    def ranks(self, spectra: Sequence[Spectrum]) -> Ranks:
        """One rank for each spectrum; 0 for a spectrum with nothing to keep."""
        ...


@dataclass(frozen=True)
class Energy:
    """The smallest ranks that keep more than ``share`` of the squared singular values, one threshold for all layers.

    Source: LRDKT (Lin et al., TPAMI 2019), whose networks use 0.7 and 0.5.
    """

    share: float

    @property
    def name(self) -> str:
        """With the share."""
        return f"energy {self.share:g}"

    @property
    def methods(self) -> tuple[str, ...]:
        """Those with spectra; of several structures the cheapest is taken, for all keep the same share."""
        return ("kronecker", "low-rank", "channel-svd", "tucker", "tt", "tt-matrix")

    def ranks(self, spectra: Sequence[Spectrum]) -> Ranks:
        """Not rounded: the rule is the paper's."""
        found = []
        for spectrum in spectra:
            kept = spectrum.values.sum(0).cumsum(0)
            found.append(min(1 + int((kept <= self.share * kept[-1]).sum()), len(kept)))
        return tuple(found)


@dataclass(frozen=True)
class Evbmf:
    """The rank of the empirical variational Bayesian matrix factorization, with the noise estimated from the spectrum.

    Source: Nakajima, Sugiyama, Babacan, Tomioka, *Global Analytic Solution of Fully-observed Variational Bayesian
    Matrix Factorization* (JMLR 2013), theorem 2 and corollary 2; used for Tucker-2 by Kim et al. (ICLR 2016).
    """

    @property
    def name(self) -> str:
        """The abbreviation."""
        return "EVBMF"

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with one structure for a kernel: the rule chooses ranks and cannot tell which of two structures loses
        less.
        """
        return ("low-rank", "channel-svd", "tucker", "tt")

    def ranks(self, spectra: Sequence[Spectrum]) -> Ranks:
        """One for each unfolding, of the groups' mean spectrum."""
        return tuple(evbmf_rank(spectrum.values.mean(0).sqrt().numpy(), spectrum.long) for spectrum in spectra)


def evbmf_rank(singular: np.ndarray, long: int) -> int:
    """Estimated rank of a noisy matrix [len(singular), long] with these singular values, descending."""
    short = len(singular)
    alpha = short / long
    tau = 2.5129 * math.sqrt(alpha)
    # The ratio of observed to noise variance above which a component is kept.
    threshold = (1 + tau) * (1 + alpha / tau)
    squares = singular.astype(np.float64) ** 2
    total = float(squares.sum())
    if total <= 0:
        return 0

    def free_energy(log_noise: float) -> float:
        x = np.maximum(squares / (long * math.exp(log_noise)), 1e-12)
        kept, rest = x[x > threshold], x[x <= threshold]
        t = ((kept - (1 + alpha)) + np.sqrt((kept - (1 + alpha)) ** 2 - 4 * alpha)) / 2
        energy = (rest - np.log(rest)).sum() + (kept - t).sum()
        energy += (np.log((t + 1) / kept) + alpha * np.log(t / alpha + 1)).sum()
        return float(energy)

    most = max(1, min(math.ceil(short / (1 + alpha)) - 1, short))
    upper = total / (short * long)
    lower = max(squares[most] / (long * threshold), squares[most:].mean() / long) if most < short else upper * 1e-6
    lower = min(max(float(lower), upper * 1e-9), upper)
    if lower >= upper:
        noise = upper
    else:
        # The free energy has several minima: a grid first, then the best cell.
        grid = np.linspace(math.log(lower), math.log(upper), 65)
        best = int(np.argmin([free_energy(x) for x in grid]))
        cell = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        noise = math.exp(minimize_scalar(free_energy, bounds=cell, method="bounded").x)
    return int((squares > long * noise * threshold).sum())
