"""The form of each stage in a file of a given type.

The plan's forms for the target win, with two exceptions. A plan that names the defaults of float32 has not chosen
anything: its layers get the defaults of the type. And forms that would stay float are replaced, with a notice: in ONNX
a constant matrix on the left of a product, and a kernel that is expanded when the file is loaded, are no integers.

A file's arithmetic decides, not the type of its stored weights: an ONNX file with int8 weights alone computes in
float32 (``weights``), and its layers keep the forms of float32.
"""

from __future__ import annotations

from edgekron.algebra import Stage
from edgekron.algebra.lowering import default_forms
from edgekron.graph import Factorized, Hub

from .types import computes_in_integers


def forms_of(hub: Hub, target: str, dtype: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """(forms of every factorized layer by name, one sentence for each layer whose planned forms were replaced).

    ``target`` is "onnx" or "tflite".
    """
    chosen: dict[str, tuple[str, ...]] = {}
    notices = []
    integers = computes_in_integers(dtype, target)
    for layer in hub.layers():
        if layer.factorized is None:
            continue
        planned = tuple(layer.factorized.forms.get(target, ()))
        floats = default_forms(_stages(layer.factorized), target)
        if not integers:
            chosen[layer.name] = planned or floats
            continue
        wanted = () if planned == floats else planned
        chosen[layer.name] = _integer_forms(layer.factorized, target, wanted)
        if wanted and chosen[layer.name] != wanted:
            notices.append(
                f"layer {layer.name}: the planned form {', '.join(planned)} would stay float in {dtype}; "
                f"{', '.join(chosen[layer.name])} is used instead."
            )
    return chosen, notices


def _stages(factorized: Factorized) -> tuple[Stage, ...]:
    return factorized.network.stages(factorized.order, factorized.geometry)


def _integer_forms(factorized: Factorized, target: str, planned: tuple[str, ...]) -> tuple[str, ...]:
    defaults = default_forms(_stages(factorized), target, "int8")
    if not planned:
        return defaults
    if target == "tflite":
        return planned
    if planned == ("expand",):
        return ("dense",)
    return tuple(new if old == "matmul" else old for old, new in zip(planned, defaults, strict=len(planned) > 1))
