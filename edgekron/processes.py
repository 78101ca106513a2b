"""One process or many: ``torchrun`` gives their number in environment variables, and torch's own engine joins them.

    torchrun --nproc-per-node 2 -m edgekron.cli.main finetune ...

Every process holds the whole network and takes its share of the images. In training all get the mean of the gradients,
and in calibration the sums over all images. A decision that rounding could turn is made by the first process for all.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import UserError

T = TypeVar("T")

#: Called with the name of the work, how many steps of it are finished, and of how many.
Progress = Callable[[str, int, int], None]


def silent(work: str, done: int, total: int) -> None:
    """The ``Progress`` that shows nothing."""


@dataclass(frozen=True)
class Processes:
    """One process among all."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """The processor that computes, in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return platform.processor() or platform.machine()

    def share(self, rows: Tensor) -> Tensor:
        """The process's part of a batch's rows. Raises ``UserError`` for rows that cannot be shared evenly."""
        if len(rows) % self.count:
            raise UserError(
                f"a batch of {len(rows)} images cannot be shared by {self.count} processes; give a --batch that can."
            )
        return rows.view(self.count, -1)[self.rank]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place of ``value``."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of all processes, in the order of the processes; n may differ."""
        if self.count == 1:
            return rows
        counts = torch.zeros(self.count, dtype=torch.int64)
        counts[self.rank] = len(rows)
        ends = self.sum(counts).cumsum(0).tolist()
        whole = rows.new_zeros(ends[-1], *rows.shape[1:])
        whole[ends[self.rank] - len(rows) : ends[self.rank]] = rows
        return self.sum(whole)

    def agreed(self, value: T, write: Callable[[T], bytes], read: Callable[[bytes], T]) -> T:
        """The ``value`` of the first process, which the others ``read`` from the bytes that the first one writes.

        For values that all processes have computed alike but for rounding, so that all go on with the same.
        """
        if self.count == 1:
            return value
        text = np.frombuffer(write(value) if self.first else b"", np.uint8)
        told = self.gather(torch.from_numpy(text.copy()))
        return value if self.first else read(told.numpy().tobytes())

    def together(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all processes."""
        if self.count == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)

    def wait(self) -> None:
        """Returns when all processes have called this."""
        if self.count > 1:
            dist.barrier()


#: The one process of a program that ``torchrun`` did not start.
ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined(*, gpus: bool = True) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, joined for as long as the block lasts; or this process alone.

    On a machine with GPUs each process has one of its own, unless ``gpus`` is false. Raises ``UserError`` when another
    process is gone.
    """
    count, rank, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    cuda = gpus and torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(rank, count, device)
    except RuntimeError as error:
        # Gloo has no kind of error of its own.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            "another process is gone; run the same command again (a training goes on from its last state)."
        ) from error
    finally:
        dist.destroy_process_group()


_VARIABLES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
