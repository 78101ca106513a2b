"""LSTM, GRU and RNN, unrolled: one group of operators for each step of a sequence, which has a known length.

One matrix product in front has the products with the inputs of all steps; each step has one product with its state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import Value
from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, used

from .linear import fully_connected
from .slicing import strided_slice

#: The most steps that are unrolled: a step is some twenty operators.
_LONGEST = 256
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
#: Places of the inputs; the last two are LSTM's alone.
_LENGTHS, _STATE, _CELL, _PEEPHOLES = 4, 5, 6, 7


@dataclass
class _Direction:
    """One direction's constants, as ONNX writes them without the axis of directions."""

    call: Call
    f: Formula
    recurrence: np.ndarray
    bias: np.ndarray
    peepholes: np.ndarray | None
    name: str

    def __post_init__(self) -> None:
        self._weights: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def hidden(self) -> int:
        """Values of a state."""
        return self.recurrence.shape[1]

    def product(self, state: Tensor, first: int, last: int, *, biased: bool = False) -> Tensor:
        """The state [N, H] times the recurrent weights of gates ``first`` to ``last``, with the gates' bias or none."""
        rows = slice(first * self.hidden, last * self.hidden)
        if (first, last) not in self._weights:
            vector = self.bias[rows] if biased else np.zeros(rows.stop - rows.start, np.float32)
            program, name = self.call.program, f"{self.name}/recurrence{first}"
            self._weights[first, last] = (
                program.constant(name, self.recurrence[rows]),
                program.constant(f"{name}/bias", vector),
            )
        inputs = [state, *self._weights[first, last]]
        shape = (state.shape[0], rows.stop - rows.start)
        return self.call.program.emit("FULLY_CONNECTED", inputs, shape, f"{self.name}/state")

    def gate(self, gates: Tensor, index: int) -> Tensor:
        """One gate [N, H] of several side by side."""
        return strided_slice(
            self.call.program, gates, {1: (index * self.hidden, 1, self.hidden)}, f"{self.name}/gate{index}"
        )

    def seen(self, gate: Tensor, cell: Tensor | None, index: int) -> Tensor:
        """A gate [N, H] with the cell added through the peepholes of i, o and f, if there are any."""
        if self.peepholes is None or cell is None:
            return gate
        weights = self.peepholes[index * self.hidden : (index + 1) * self.hidden]
        return self.f("ADD", gate, self.f("MUL", cell, self.call.program.constant(f"{self.name}/peephole", weights)))


#: From the inputs' part [N, gates H] of a step, the state and LSTM's cell to the next state and cell.
_Step = Callable[[_Direction, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]]


@translates("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> None:
    """One step after the other in either direction or both; a sequence has one length, known at export."""
    kind, layout = call.node.op_type, int(call.attribute("layout", 0))
    directions = ["forward", "reverse"] if call.attribute("direction") == "bidirectional" else [None]
    if list(call.attribute("activations") or _DEFAULTS[kind] * len(directions)) != _DEFAULTS[kind] * len(directions):
        call.refuse("its activations are not the usual ones", f"use {', '.join(_DEFAULTS[kind])}")
    if call.attribute("clip") is not None or call.attribute("input_forget", 0):
        call.refuse("it clips its gates or couples two of them", "leave clip and input_forget out")
    x = call.value(0, (1, 0, 2) if layout else (0, 1, 2)).tensor
    if call.has(_LENGTHS) and not np.all(call.constant(_LENGTHS, "sequence_lens") == x.shape[0]):
        call.refuse("its sequences are of different lengths", "give all the whole length")
    if x.shape[0] > _LONGEST:
        call.refuse(f"a sequence of {x.shape[0]} steps is more than {_LONGEST}", "cut it into shorter ones")
    found = [_run(call, x, d, way or call.attribute("direction", "forward")) for d, way in enumerate(directions)]
    orders = [(1, 2, 0, 3), (1, 0, 2), (1, 0, 2)] if layout else [(0, 1, 2, 3), (0, 1, 2), (0, 1, 2)]
    for index, (value, order) in enumerate(zip(call.node.outputs, orders, strict=False)):
        if used(value):
            y = _joined(call, [parts[index] for parts in found], 1 if index == 0 else 0, value.name or call.name)
            call.result(Value(y, order), index)


def _run(call: Call, x: Tensor, direction: int, way: str) -> list[Tensor]:
    """All states [T, 1, N, H], the last one [1, N, H], and the last cell, in one direction."""
    name = f"{call.name}/{way}"
    weight, recurrence = call.numbers(1, "weight")[direction], call.numbers(2, "recurrence")[direction]
    rows, hidden = recurrence.shape
    bias = call.numbers(3, "bias")[direction] if call.has(3) else np.zeros(2 * rows, np.float32)
    peepholes = call.numbers(_PEEPHOLES, "peepholes")[direction] if call.has(_PEEPHOLES) else None
    part = _Direction(call, Formula(call), recurrence, bias[rows:], peepholes, name)
    # The bias of the state's product joins that of the input's, but for GRU's last gate, which may scale its own.
    shared = rows - hidden if call.node.op_type == "GRU" and call.attribute("linear_before_reset", 0) else rows
    total = bias[:rows] + np.where(np.arange(rows) < shared, bias[rows:], 0)
    inputs = fully_connected(call.program, x, weight, total, f"{name}/inputs", f"{name}/weight")
    steps = range(x.shape[0]) if way == "forward" else reversed(range(x.shape[0]))
    state, cell = (_initial(call, i, direction) for i in (_STATE, _CELL))
    states: dict[int, Tensor] = {}
    for t in steps:
        given = strided_slice(call.program, inputs, {0: (t, 1, 1)}, f"{name}/step{t}")
        given = call.program.reshape(given, (x.shape[1], rows), f"{name}/step{t}/input")
        state, cell = _STEPS[call.node.op_type](part, given, state, cell)
        states[t] = state
    single = (1, 1, x.shape[1], hidden)
    ordered = [call.program.reshape(states[t], single, f"{name}/step{t}/state") for t in range(x.shape[0])]
    last = [call.program.reshape(s, single[1:], f"{name}/last") for s in (state, cell) if s is not None]
    return [_joined(call, ordered, 0, f"{name}/states"), *last]


def _initial(call: Call, index: int, direction: int) -> Tensor | None:
    """The initial state [N, H] of one direction; None for a state of zeros."""
    if not call.has(index) or (call.node.op_type != "LSTM" and index == _CELL):
        return None
    value = call.value(index, (1, 0, 2) if call.attribute("layout", 0) else (0, 1, 2)).tensor
    one = strided_slice(call.program, value, {0: (direction, 1, 1)}, f"{call.name}/initial")
    return call.program.reshape(one, value.shape[1:], f"{call.name}/initial/state")


def _joined(call: Call, parts: list[Tensor], axis: int, name: str) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return call.program.emit("CONCATENATION", parts, shape, name, axis=axis)


def _lstm(d: _Direction, given: Tensor, state: Tensor | None, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """C' = f C + i tanh(c), H' = o tanh(C'), with the gates i, o, f, c; through peepholes i and f see C, and o C'."""
    gates = given if state is None else d.f("ADD", given, d.product(state, 0, 4))
    i, o, f, c = (d.gate(gates, k) for k in range(4))
    fresh = d.f("MUL", d.f("LOGISTIC", d.seen(i, cell, 0)), d.f("TANH", c))
    after = fresh if cell is None else d.f("ADD", d.f("MUL", d.f("LOGISTIC", d.seen(f, cell, 2)), cell), fresh)
    return d.f("MUL", d.f("LOGISTIC", d.seen(o, after, 1)), d.f("TANH", after)), after


def _gru(d: _Direction, given: Tensor, state: Tensor | None, _: Tensor | None) -> tuple[Tensor, None]:
    """H' = (1 - z) h + z H, with h = tanh(x + (r H) R) or, linear before the reset, tanh(x + r (H R + b))."""
    before = bool(d.call.attribute("linear_before_reset", 0))
    both = strided_slice(d.call.program, given, {1: (0, 1, 2 * d.hidden)}, f"{d.name}/both")
    fresh = d.gate(given, 2)
    if state is None and before:
        zero = d.call.program.constant(f"{d.name}/zero", np.zeros((given.shape[0], d.hidden), np.float32))
        state = zero
    if state is not None:
        both = d.f("ADD", both, d.product(state, 0, 2))
    both = d.f("LOGISTIC", both)
    z, r = d.gate(both, 0), d.gate(both, 1)
    if state is not None and before:
        fresh = d.f("ADD", fresh, d.f("MUL", r, d.product(state, 2, 3, biased=True)))
    elif state is not None:
        fresh = d.f("ADD", fresh, d.product(d.f("MUL", r, state), 2, 3))
    h = d.f("TANH", fresh)
    if state is None:
        return d.f("SUB", h, d.f("MUL", z, h)), None
    return d.f("ADD", h, d.f("MUL", z, d.f("SUB", state, h))), None


def _rnn(d: _Direction, given: Tensor, state: Tensor | None, _: Tensor | None) -> tuple[Tensor, None]:
    """H' = tanh(x + H R)."""
    return d.f("TANH", given if state is None else d.f("ADD", given, d.product(state, 0, 1))), None


_STEPS: dict[str, _Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
