"""The places of a sliding window, in ONNX and in TFLite.

TFLite knows two paddings. VALID has none. SAME makes the output ceil(n / stride) long and puts

    total = max((output - 1) * stride + window - n, 0),  before = total // 2

zeros (for a pool: nothing) around the input. ONNX allows any padding. If ONNX's windows have the places of SAME or of
VALID on both axes, that padding is used; otherwise the input is padded explicitly and the windows are VALID.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekron.algebra import Padding


@dataclass(frozen=True)
class Axis:
    """One axis: ``size`` of the input, ``window`` with its dilation, ``stride``, padding, and size of the output."""

    size: int
    window: int
    stride: int
    before: int
    after: int
    ceil: bool = False
    dilation: int = 1

    @property
    def places(self) -> int:
        """Values of the input that one window reads."""
        return (self.window - 1) // self.dilation + 1

    @property
    def output(self) -> int:
        """Number of windows; with ``ceil`` a last, partial window counts, unless it starts in the padding behind.

        The partial window may be the only one, if the window is larger than the input by less than a stride.
        """
        room = self.size + self.before + self.after - self.window
        if not self.ceil:
            return max(room // self.stride + 1, 0)
        count = max(-(-room // self.stride) + 1, 0)
        return count - 1 if (count - 1) * self.stride >= self.size + self.before else count

    @property
    def needed(self) -> int:
        """Padding behind the input that the last window reaches."""
        return max((self.output - 1) * self.stride + self.window - self.size - self.before, 0)

    @property
    def valid(self) -> bool:
        """Whether no window reaches beyond the input."""
        return self.before == 0 and self.needed == 0

    @property
    def same(self) -> bool:
        """Whether SAME has these windows."""
        total = max((self.output - 1) * self.stride + self.window - self.size, 0)
        return self.output == -(-self.size // self.stride) and self.before == total // 2


@dataclass(frozen=True)
class Placement:
    """TFLite's padding, and the explicit padding of the input before the operator."""

    padding: str
    explicit: Padding


def place(h: Axis, w: Axis) -> Placement:
    """The placement with which TFLite has the same windows."""
    if h.valid and w.valid:
        return Placement("VALID", ((0, 0), (0, 0)))
    if h.same and w.same:
        return Placement("SAME", ((0, 0), (0, 0)))
    return padded(h, w)


def padded(h: Axis, w: Axis) -> Placement:
    """VALID windows over an input with all the explicit padding that the windows reach."""
    return Placement("VALID", ((h.before, h.needed), (w.before, w.needed)))


def automatic(mode: str, size: int, window: int, stride: int) -> tuple[int, int]:
    """(before, after) for ONNX's ``auto_pad`` SAME_UPPER, SAME_LOWER and VALID."""
    if mode == "VALID":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return (total // 2, total - total // 2) if mode == "SAME_UPPER" else (total - total // 2, total // 2)
