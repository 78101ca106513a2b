"""``NetworkInput``: the name, type, shape and axes of an input of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError

from .channels import input_channels

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class NetworkInput:
    """One input of a network: its name, its type as numpy calls it, and its ``shape`` behind the batch.

    ``channels`` is the axis of the channels, counted with the batch as axis 0; None for anything but images.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    channels: int | None = None

    def check_type(self, batch: np.ndarray) -> None:
        """Raises ``UserError`` for arrays of numbers that the input cannot have; any float will do for a float."""
        if batch.dtype.name != self.dtype and not (batch.dtype.kind == "f" == np.dtype(self.dtype).kind):
            raise UserError(f"the input {self.name} is {self.dtype}, and arrays of {batch.dtype} were given.")

    @property
    def channels_last(self) -> bool:
        """Whether the input is an image [N, H, W, C]."""
        return self.channels == 3

    @property
    def image(self) -> tuple[int, int, int] | None:
        """[C, H, W] of an image, whatever the order of its axes; None for anything else, and for an open size."""
        if self.channels not in (1, 3) or len(self.shape) != 3 or not all(self.shape):
            return None
        first, second, third = self.shape
        return (third, first, second) if self.channels_last else (first, second, third)


def network_inputs(model: ir.Model) -> tuple[NetworkInput, ...]:
    """The inputs of a model in their order. A size that is open is 0."""
    channels = input_channels(model.graph)
    return tuple(
        NetworkInput(
            str(value.name),
            "float32" if value.dtype is None else value.dtype.numpy().name,
            tuple(d if isinstance(d, int) else 0 for d in list(value.shape or ())[1:]),
            channels.get(value),
        )
        for value in model.graph.inputs
        if not value.is_initializer()
    )
