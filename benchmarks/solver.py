"""Does LRDKT's claim hold? A closed form against iterative solvers: time to the same error of a low-rank pair.

    python -m benchmarks.solver sixconv [--energy 0.7]

LRDKT (Lin et al., TPAMI 2019) makes a convolution kh x 1 to K channels and one 1 x kw to the outputs by one singular
value decomposition, and says that this is faster than an iterative solver and loses nothing. Here every convolution
with a window of a bundled trained network becomes such a pair, at the rank that the paper's energy threshold gives it:

    closed        the structure's closed form, as the compressor calls it; the rank is chosen by its spectrum
    alternating   least squares for one factor, then for the other, from a random start
    adam          gradient descent on both factors, by Adam (Kingma and Ba, 2015), from a random start

All minimise |W - W'|^2. The iterative ones are told the least error there is, and their time is taken when theirs is
within 1 % of it, and within 0.01 % (``--tolerances``), which a user could not; looking costs them next to nothing, for
both have their error at hand in every iteration. All run in float32 on one thread, in turns. The record is
``solver-MODEL``, with a page.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import trained
from benchmarks.common.record import Record, day, machine, made
from edgekron.graph import Layer
from edgekron.planning.ranks import Energy
from edgekron.structures import FAMILIES, KroneckerShape

#: An error that is none, as a share of the kernel's square.
NOTHING = 1e-6
#: Step of Adam, for factors whose product has entries of about one; chosen by hand, for the least time.
RATE = 0.2
SOLVERS = {"alternating": "alternating least squares", "adam": "gradient descent (Adam)"}
PACKAGES = ("torch", "numpy")

#: Of an iteration: the error, over the kernel's square, and the factors [g, rows, K] and [g, K, columns].
State = tuple[float, Tensor, Tensor]
#: From M [g, rows, columns] with a mean square of one, a rank and a seed; never ends.
Solver = Callable[[Tensor, int, int], Iterator[State]]
#: When a solver came within a tolerance or was stopped: seconds, error in float64, iterations, and whether it came.
Taken = tuple[float, float, int, bool]


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, at which energy, and when a solver is stopped."""
    add_options(parser)
    parser.add_argument("--energy", type=float, default=0.7, metavar="SHARE", help="the paper's (default: 0.7)")
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-2, 1e-4], help="shares of the least error")
    parser.add_argument("--repeats", type=int, default=5, help="times that each solver runs (default: 5)")
    parser.add_argument("--iterations", type=int, default=1000, help="after which one is stopped (default: 1000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="after which one is stopped (default: 5)")


def measure(arguments: argparse.Namespace) -> Record:
    """Every layer by every solver."""
    torch.set_num_threads(1)
    _, hub = trained(arguments.model)
    rows = []
    for layer in hub.layers():
        if layer.kind == "conv" and layer.frozen_reason is None and layer.kernel_shape[2:] != (1, 1):
            rows += [_row(layer, shape, arguments) for shape in _pairs(layer)]
            print(layer.name, flush=True)
    return made(*PACKAGES) | {
        "model": arguments.model,
        **{name: getattr(arguments, name) for name in ("energy", "tolerances", "repeats", "iterations", "seconds")},
        "rate": RATE,
        "threads": 1,
        "machine": machine(load=True),
        "units": {
            "seconds": "second, median of the repeats",
            "error": "squared error of the kernel over its square, median of the repeats",
            "left": "how far above the closed form's error it was when the time was taken, as a share of that error",
            "reached": "repeats that came within the tolerance before they were stopped",
        },
        "layers": rows,
        "total": _total(rows),
    }


def _pairs(layer: Layer) -> list[KroneckerShape]:
    """The pair kh x 1 and 1 x kw of a layer; none for a kernel that no pair makes smaller."""
    found = FAMILIES["low-rank"].templates(layer.kernel_shape, layer.groups)
    return [shape for shape in found if isinstance(shape, KroneckerShape)]


def _row(layer: Layer, shape: KroneckerShape, arguments: argparse.Namespace) -> dict[str, Any]:
    kernel = torch.from_numpy(np.array(layer.kernel))
    kernel_square = float(kernel.double().square().sum())
    kernel /= kernel.square().mean().sqrt()
    m = shape.rearrange(kernel)
    (rank,) = Energy(arguments.energy).ranks(shape.decompose(kernel).spectra)
    least = error_of(m, *closed(shape, kernel, rank))
    solvers: dict[str, Solver] = {"alternating": alternating, "adam": adam}
    seconds: list[float] = []
    taken: dict[str, list[list[Taken]]] = {name: [] for name in solvers}
    # The first turn warms up. Every turn begins with another solver.
    for turn in range(arguments.repeats + 1):
        names = ["closed", *solvers]
        for name in names[turn % 3 :] + names[: turn % 3]:
            if name in solvers:
                taken[name].append(_timed(solvers[name](m, rank, turn), m, least, arguments))
                continue
            start = time.perf_counter()
            closed(shape, kernel, rank)
            seconds.append(time.perf_counter() - start)
    row: dict[str, Any] = {"layer": layer.name, "kernel": list(kernel.shape), "rank": rank, "of": shape.max_rank}
    row |= {"square": kernel_square, "error": least, "seconds": statistics.median(seconds[1:])}
    for name, turns in taken.items():
        row[name] = [_median(runs, least) for runs in zip(*turns[1:], strict=True)]
    return row


def _timed(states: Iterator[State], m: Tensor, least: float, arguments: argparse.Namespace) -> list[Taken]:
    """Time, error and iterations of a solver when it comes within each tolerance, or when it is stopped before."""
    found: list[Taken] = []
    wanted = [max((1 + tolerance) * least, NOTHING) for tolerance in sorted(arguments.tolerances, reverse=True)]
    start = time.perf_counter()
    for iteration, (error, left, right) in enumerate(states, 1):
        now = time.perf_counter() - start
        came = sum(error <= aim for aim in wanted)
        over = iteration >= arguments.iterations or now >= arguments.seconds or came == len(wanted)
        if over or came > len(found):
            exact = error_of(m, left, right)
            found += [(now, exact, iteration, True)] * (came - len(found))
            if over:
                found += [(now, exact, iteration, False)] * (len(wanted) - len(found))
                break
            # The clock stood still meanwhile.
            start = time.perf_counter() - now
    return found


def _median(runs: tuple[Taken, ...], least: float) -> dict[str, Any]:
    seconds, error, iterations, _ = (statistics.median(values) for values in zip(*runs, strict=True))
    return {
        "seconds": seconds,
        "error": error,
        "iterations": round(iterations),
        "left": error / least - 1 if least > NOTHING else 0.0,
        "reached": sum(run[3] for run in runs),
    }


def closed(shape: KroneckerShape, kernel: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors by the structure's closed form."""
    left, right = shape.decompose(kernel).truncated(rank)
    # A has f and w, B has c and h, both with the rank first.
    return left.reshape(shape.groups, rank, -1).mT, right.reshape(shape.groups, rank, -1)


def alternating(m: Tensor, rank: int, seed: int) -> Iterator[State]:
    """Least squares for A, then for B, from a random B."""
    right = torch.randn(m.shape[0], rank, m.shape[2], generator=torch.Generator().manual_seed(seed))
    square = m.square().sum()
    while True:
        left = torch.linalg.solve(right @ right.mT, right @ m.mT).mT
        product = left.mT @ m
        right = torch.linalg.solve(left.mT @ left, product)
        # At the least squares of B, |M - A B|^2 = |M|^2 - <A^T M, B>.
        yield float(1 - (product * right).sum() / square), left, right


def adam(m: Tensor, rank: int, seed: int) -> Iterator[State]:
    """Gradient descent from random A and B, whose product has a mean square of one; the gradient is written out."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(*m.shape[:2], rank, generator=generator) / rank**0.25
    right = torch.randn(m.shape[0], rank, m.shape[2], generator=generator) / rank**0.25
    optimiser = torch.optim.Adam([left, right], lr=RATE)
    while True:
        rest = left @ right - m
        yield float(rest.square().mean()), left, right
        left.grad, right.grad = rest @ right.mT, left.mT @ rest
        optimiser.step()


def error_of(m: Tensor, left: Tensor, right: Tensor) -> float:
    """|M - A B|^2 / |M|^2, in float64."""
    exact = m.double()
    return float((exact - left.double() @ right.double()).square().sum() / exact.square().sum())


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all layers together: seconds, error over the kernels' squares, iterations, and runs that came there."""
    square = sum(row["square"] for row in rows)

    def summed(each: list[dict[str, Any]]) -> dict[str, Any]:
        error = sum(one["error"] * row["square"] for one, row in zip(each, rows, strict=True)) / square
        return {"seconds": sum(one["seconds"] for one in each), "error": error}

    found: dict[str, Any] = summed(rows)
    for name in SOLVERS:
        found[name] = []
        for each in zip(*(row[name] for row in rows), strict=True):
            one = summed(list(each))
            counts = {key: sum(layer[key] for layer in each) for key in ("iterations", "reached")}
            found[name].append({**one, "left": one["error"] / found["error"] - 1, **counts})
    return found


def table(result: Record) -> str:
    """The layers as Markdown, and a verdict on the claim."""
    rows, total, repeats = result["layers"], result["total"], result["repeats"]
    goals = [f"{100 * tolerance:g} %" for tolerance in sorted(result["tolerances"], reverse=True)]
    setting = (
        f"`{result['command']}`, {day(result)}, torch {result['versions']['torch']}, one thread: every "
        f"convolution with a window as a pair kh x 1 and 1 x kw, at the rank that keeps {result['energy']:g} of the "
        f"energy. Times are medians of {repeats} runs, in turns. Iterative solvers begin at random and are told the "
        f"least error there is. Their time is taken when theirs is within {' and '.join(goals)} of it; beside it are "
        "iterations, and how far above the least error they were. They are stopped after "
        f"{result['iterations']:,} iterations or {result['seconds']:g} seconds. Error is squared, over the kernel's "
        "square."
    )
    heads = ["layer", "kernel", "rank", "error", "closed form, ms"]
    heads += [f"{title}, to {goal}, ms" for title in SOLVERS.values() for goal in goals]
    title = f"# A closed form against iterative solvers, on {result['model']}"
    lines = [title, "", setting, "", *tables.head(heads)]
    for row in rows:
        cells = [row["layer"], "x".join(map(str, row["kernel"])), f"{row['rank']} of {row['of']}"]
        lines.append(tables.row([*cells, *_cells(row, repeats)]))
    lines += [f"| all | | {tables.row(_cells(total, repeats * len(rows)))}", ""]
    for name, title in SOLVERS.items():
        for index, goal in enumerate(goals):
            times = total[name][index]["seconds"] / total["seconds"]
            faster = sum(row["seconds"] < row[name][index]["seconds"] for row in rows)
            lines.append(
                f"- To {goal}, {title} takes {times:.2f} times as long as the closed form, which is faster in {faster} "
                f"of {len(rows)} layers."
            )
    lines.append(
        "- The closed form's time includes the whole spectrum, which the rank is chosen by and the others do not give."
    )
    return "\n".join([*lines, ""])


def _cells(row: dict[str, Any], runs: int) -> list[str]:
    """Error and time of the closed form; time, iterations and what is left of the others."""
    cells = [f"{row['error']:.3f}", f"{1e3 * row['seconds']:.2f}"]
    for one in (one for name in SOLVERS for one in row[name]):
        stopped = f", stopped in {runs - one['reached']} of {runs} runs" if one["reached"] < runs else ""
        cells.append(f"{1e3 * one['seconds']:.2f} ({one['iterations']:,}; {100 * one['left']:.2g} %{stopped})")
    return cells


EXPERIMENT = Experiment("solver", __doc__, "solver-{model}", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
