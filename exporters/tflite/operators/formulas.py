"""Activations that are formulas of operators that every runtime has."""

from __future__ import annotations

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.program import BOOLEAN, Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("Elu")
def elu(call: Call) -> None:
    """The input, or alpha (exp(x) - 1) below zero."""
    x, alpha = call.value(), float(call.attribute("alpha", 1.0))
    f = Formula(call, floats=True)
    call.finish(f("ELU", x.tensor) if alpha == 1.0 else _joined(f, x.tensor, alpha), x.order)


@translates("Selu")
def selu(call: Call) -> None:
    """Gamma times the input, or gamma alpha (exp(x) - 1) below zero."""
    x, f = call.value(), Formula(call, floats=True)
    alpha = float(call.attribute("alpha", 1.6732632423543772))
    gamma = float(call.attribute("gamma", 1.0507009873554805))
    call.finish(f("MUL", _joined(f, x.tensor, alpha), gamma), x.order)


@translates("Celu")
def celu(call: Call) -> None:
    """The input, or alpha (exp(x / alpha) - 1) below zero."""
    x, f, alpha = call.value(), Formula(call, floats=True), float(call.attribute("alpha", 1.0))
    if alpha <= 0:
        call.refuse(f"alpha is {alpha}", "use an alpha above zero")
    call.finish(_joined(f, x.tensor, alpha, alpha), x.order)


@translates("Swish")
def swish(call: Call) -> None:
    """The input times sigmoid(alpha x)."""
    x, f, alpha = call.value(), Formula(call), float(call.attribute("alpha", 1.0))
    scaled = x.tensor if alpha == 1.0 else f("MUL", x.tensor, alpha)
    call.finish(f("MUL", x.tensor, f("LOGISTIC", scaled)), x.order)


@translates("Softplus")
def softplus(call: Call) -> None:
    """Log(1 + exp(x)) = max(x, 0) + log(1 + u) with u = exp(-|x|), which never overflows.

    The sum w = 1 + u is rounded. The rounding error, u - (w - 1), is added: log(1 + u) = log(w) + (u - (w - 1)) / w.
    """
    x, f = call.value(), Formula(call, floats=True)
    u = f("EXP", f("NEG", f("ABS", x.tensor)))
    w = f("ADD", u, 1.0)
    lost = f("DIV", f("SUB", u, f("SUB", w, 1.0)), w)
    call.finish(f("ADD", f("RELU", x.tensor), f("ADD", f("LOG", w), lost)), x.order)


@translates("Mish")
def mish(call: Call) -> None:
    """The input times tanh(log(1 + exp(x))) = n / (n + 2) with n = exp(x) (exp(x) + 2).

    Above 20 the ratio is 1 in float32, so that exp is never taken of more.
    """
    x, f = call.value(), Formula(call, floats=True)
    e = f("EXP", f("MINIMUM", x.tensor, 20.0))
    n = f("MUL", e, f("ADD", e, 2.0))
    call.finish(f("MUL", x.tensor, f("DIV", n, f("ADD", n, 2.0))), x.order)


@translates("Softsign")
def softsign(call: Call) -> None:
    """The input over 1 + |x|."""
    x, f = call.value(), Formula(call, floats=True)
    call.finish(f("DIV", x.tensor, f("ADD", f("ABS", x.tensor), 1.0)), x.order)


@translates("ThresholdedRelu")
def thresholded_relu(call: Call) -> None:
    """Each value if above alpha, else zero."""
    x, f = call.value(), Formula(call, floats=True)
    above = f("GREATER", x.tensor, float(call.attribute("alpha", 1.0)), dtype=BOOLEAN)
    call.finish(f("SELECT_V2", above, x.tensor, 0.0, dtype=x.tensor.dtype), x.order)


@translates("Erf")
def erf(call: Call) -> None:
    """The error function to 3e-7: 1 - (a1 t + ... + a5 t^5) exp(-x^2) with t = 1 / (1 + p |x|), times the sign of x.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    x, f = call.value(), Formula(call, floats=True)
    size = f("ABS", x.tensor)
    t = f("DIV", 1.0, f("ADD", f("MUL", size, 0.3275911), 1.0))
    series = f("MUL", t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = f("MUL", f("ADD", series, coefficient), t)
    tail = f("MUL", series, f("EXP", f("NEG", f("MUL", size, size))))
    call.finish(f("MUL", f("SIGN", x.tensor), f("SUB", 1.0, tail)), x.order)


def _joined(f: Formula, x: Tensor, alpha: float, width: float = 1.0) -> Tensor:
    """max(x, 0) + alpha (exp(min(x, 0) / width) - 1)."""
    below = f("MINIMUM", x, 0.0)
    curved = f("ELU", below if width == 1.0 else f("MUL", below, 1 / width))
    return f("ADD", f("RELU", x), curved if alpha == 1.0 else f("MUL", curved, alpha))
