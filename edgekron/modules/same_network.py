"""Whether a torch module computes what a hub computes: both run on the same random inputs, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgekron.errors import UserError

from .places import places, tensors_of, values_at

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekron.graph import Hub

#: Largest difference of a value, in the mean square and relative to the hub's, that rounding may leave.
TOLERANCE = 1e-3
#: Random inputs that are compared.
_COUNT = 2


def check_same(module: nn.Module, hub: Hub, norms: Mapping[str, str]) -> None:
    """Raises ``UserError``, with the first layer that differs, unless ``module`` computes what ``hub`` computes.

    ``norms`` has the normalisation of the module that the hub folded into a layer, by the layer. A copy of the module
    runs on the CPU in float32, in evaluation mode.
    """
    probe = copy.deepcopy(module).to("cpu", torch.float32).eval()
    given = random_inputs(hub)
    at = list(places(probe, hub, norms))
    wanted = _values_of(hub, given, [place.output for place in at])
    try:
        with torch.random.fork_rng(devices=[]):
            found, output = values_at(probe, at, *map(torch.from_numpy, given.values()))
    except Exception as error:
        shapes = ", ".join(str(list(array.shape)) for array in given.values())
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the module cannot run on an input {shapes} ({reason}); {_REMEDY}") from error
    for place in at:
        if place.output in found:
            _compare(f"layer {place.layer}", found[place.output], wanted[place.output])
    outputs = [tensor.detach().numpy() for tensor in tensors_of(output)]
    if len(outputs) != len(hub.output_names):
        raise UserError(
            f"the module gives {len(outputs)} outputs and the compressed network {len(hub.output_names)}; {_REMEDY}"
        )
    for name, array in zip(hub.output_names, outputs, strict=True):
        _compare(f"output {name}", array, wanted[name])


_REMEDY = "compress this module itself, or use the hub: export it, or train edgekron.modules.GraphModule of it."


def _compare(what: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Raises ``UserError`` where two values differ by more than ``TOLERANCE``."""
    if found.shape != wanted.shape:
        raise UserError(
            f"{what} has shape {list(found.shape)} in the module and {list(wanted.shape)} in the compressed network; "
            f"{_REMEDY}"
        )
    gap = float(np.linalg.norm(np.subtract(found, wanted, dtype=np.float64)))
    size = float(np.linalg.norm(wanted.astype(np.float64)))
    if not gap <= TOLERANCE * size:
        error = f"{100 * gap / size:.3g} %" if size else "wholly"
        raise UserError(
            f"the module is not the compressed network, also with its factors: {what} is {error} off for the same "
            f"input; {_REMEDY}"
        )


def random_inputs(hub: Hub) -> dict[str, np.ndarray]:
    """Inputs of the hub by name: normally distributed, zeros and ones for integers."""
    rng = np.random.default_rng(0)
    return {str(value.name): _random(value, rng) for value in hub.model.graph.inputs}


def _random(value: ir.Value, rng: np.random.Generator) -> np.ndarray:
    batch, *sizes = list(value.shape or ()) or [1]
    shape = [batch if isinstance(batch, int) else _COUNT, *(n if isinstance(n, int) else 1 for n in sizes)]
    kind = np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())
    if kind.kind == "f":
        return rng.standard_normal(shape if value.shape is None or len(value.shape) else []).astype(kind)
    return rng.integers(0, 2, shape).astype(kind)


def _values_of(hub: Hub, given: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The values ``names`` of the hub and its outputs, computed as the graph is written."""
    import onnxruntime

    wanted = list(dict.fromkeys([*names, *hub.output_names]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = hub.submodel(list(given), wanted).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip(wanted, session.run(wanted, dict(given)), strict=True))
