"""How fast a factorized layer trains, against the prediction of its MACs and against the same chain written by hand.

    python -m benchmarks.layer_training [--ratio 4] [--batch 128]

For convolutions of 3 x 3 from 16 to 512 channels, with about that many times fewer MACs: forward and backward pass of
the dense layer, of EdgeKron's ``FactorizedConv2d``, and of an ``nn.Sequential`` of the same stages as ordinary
convolutions, in turns, under bfloat16 on hardware that multiplies bfloat16, in channels_last. The record is
``layer-training``, with a page.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.record import Record, day, machine, made
from edgekron.modules.layers import FactorizedConv2d
from edgekron.planning.ranks import rounded
from edgekron.structures import KroneckerShape, Structure, Tucker2
from edgekron.training.precision import autocast, has_bfloat16

#: Channels and pixels along a side.
LAYERS = ((16, 28), (32, 28), (64, 28), (128, 14), (256, 14), (512, 7))
CPU = torch.device("cpu")


def options(parser: argparse.ArgumentParser) -> None:
    """How much smaller layers are, and how they are timed."""
    add_options(parser, "ratio", model=False, ratio=4.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each (default: 9)")


def measure(arguments: argparse.Namespace) -> Record:
    """A row for every layer and family."""
    rows = []
    for channels, pixels in LAYERS:
        dense = _conv(channels, channels, (3, 3))
        x = torch.randn(arguments.batch, channels, pixels, pixels)
        x = x.to(torch.bfloat16 if has_bfloat16(CPU) else torch.float32).contiguous(memory_format=torch.channels_last)
        for family, structure, rank, chain in families(channels, arguments.ratio):
            network = structure.network(*rank)
            factors = structure.decompose(dense.weight.detach()).truncated(*rank)
            modules = {
                "dense": dense,
                "factorized": FactorizedConv2d.replacing(dense, network, factors),
                "by hand": chain,
            }
            milliseconds = _times(
                {name: m.to(memory_format=torch.channels_last) for name, m in modules.items()}, x, arguments.rounds
            )
            macs = network.parameters
            ratio, speedup = dense.weight.numel() / macs, milliseconds["dense"] / milliseconds["factorized"]
            row = {"channels": channels, "pixels": pixels, "family": family, "rank": list(rank), "mac_ratio": ratio}
            row |= {"milliseconds": milliseconds, "speedup": speedup, "speedup_over_mac_ratio": speedup / ratio}
            row["by_hand_over_factorized"] = milliseconds["by hand"] / milliseconds["factorized"]
            rows.append(row)
            print(row, flush=True)
    return made("torch") | {
        "rows": rows,
        "batch": arguments.batch,
        "bfloat16": has_bfloat16(CPU),
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }


def families(channels: int, ratio: float) -> Iterator[tuple[str, Structure, tuple[int, ...], nn.Module]]:
    """Name, structure, ranks and hand-written chain of each family, none of which has a stride, so that parameters are
    in the ratio of MACs.
    """
    f, wanted = channels, 9 * channels * channels / ratio
    rank = rounded(wanted / (6 * f))
    shape = KroneckerShape((f, 1), (1, f), (1, 3), (3, 1))
    yield "low-rank", shape, (rank,), nn.Sequential(_conv(f, rank, (3, 1)), _conv(rank, f, (1, 3)))
    rank = rounded(wanted / (10 * f))
    shape = KroneckerShape((f, 1), (1, f), (1, 3), (1, 3))
    yield "channel-svd", shape, (rank,), nn.Sequential(_conv(f, rank, (3, 3)), _conv(rank, f, (1, 1)))
    rank = rounded(((f * f + 9 * wanted) ** 0.5 - f) / 9)
    chain = nn.Sequential(_conv(f, rank, (1, 1)), _conv(rank, rank, (3, 3)), _conv(rank, f, (1, 1)))
    yield "tucker", Tucker2((f, f, 3, 3)), (rank, rank), chain


def _conv(inputs: int, outputs: int, window: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, window, padding=(window[0] // 2, window[1] // 2), bias=False)


def _times(modules: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median milliseconds of forward and backward pass, the modules in turns."""
    found: dict[str, list[float]] = {name: [] for name in modules}
    for number in range(rounds + 2):
        for name, module in modules.items():
            seconds = _step(module, x)
            # The first steps choose algorithms.
            if number >= 2:
                found[name].append(1e3 * seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def _step(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    x = x.detach().requires_grad_()
    start = time.perf_counter()
    with autocast(CPU, "auto"):
        y = module(x)
    y.sum().backward()
    return time.perf_counter() - start


def table(result: Record) -> str:
    """The rows as Markdown."""
    kind = "bfloat16" if result["bfloat16"] else "float32"
    setting = (
        f"`{result['command']}`, {day(result)}: forward and backward pass of a 3 x 3 convolution, batch "
        f"{result['batch']}, {kind}, {result['machine']}, threads: {result['threads']}, torch "
        f"{result['versions']['torch']}; medians, in turns."
    )
    heads = ["channels", "pixels", "family", "MACs", "dense ms", "factorized ms", "by hand ms", "as fast as dense"]
    heads.append("of what MACs predict")
    lines = ["# How fast factorized layers train", "", setting, "", *tables.head(heads)]
    for row in result["rows"]:
        cells = [str(row["channels"]), f"{row['pixels']} x {row['pixels']}", row["family"]]
        cells.append(f"{row['mac_ratio']:.2f}x fewer")
        cells += [f"{row['milliseconds'][name]:.1f}" for name in ("dense", "factorized", "by hand")]
        cells += [f"{row['speedup']:.2f}x", f"{row['speedup_over_mac_ratio']:.2f}"]
        lines.append(tables.row(cells))
    return "\n".join([*lines, ""])


EXPERIMENT = Experiment("layer_training", __doc__, "layer-training", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
