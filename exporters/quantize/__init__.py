"""Files in smaller types than float32.

    export(hub, "network.tflite", Quantization("int8", images=batches))

The quantizers are those of the runtimes' makers (``onnxruntime.quantization`` and ``ai-edge-quantizer``). What is done
here is to prepare the network for them: factors are rebalanced (``rebalance``), and layers take the forms that quantize
correctly and run fast (``forms``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError
from edgekron.files import refuse_existing, write_file
from edgekron.graph.nodes import OPSET

from .forms import forms_of
from .rebalance import rebalance
from .types import DTYPES, Quantization

if TYPE_CHECKING:
    import numpy as np

    from edgekron.graph import Hub

__all__ = ["DTYPES", "Quantization", "export", "rebalance"]


def export(
    hub: Hub,
    path: str | Path,
    how: Quantization,
    *,
    opset: int = OPSET,
    batch: int = 1,
    force: bool = False,
    forms: Mapping[str, Sequence[str]] | None = None,
    fixed_size: bool = False,
) -> list[str]:
    """Writes ``path`` (.onnx or .tflite) in the type of ``how`` and gives the notices that a user should see.

    ``forms`` gives the forms of some layers by name, ahead of those in the hub. ``opset`` and ``fixed_size`` are for
    ONNX, as in ``export_onnx``, ``batch`` for TFLite. Raises what the exporters raise, and ``UserError`` for images
    that do not fit the network.
    """
    refuse_existing(path, force)
    target = Path(path).suffix.removeprefix(".")
    if target not in ("onnx", "tflite"):
        raise UserError(f"{path} should end in .onnx or .tflite; runtimes go by the name.")
    for images in how.images:
        if images.shape[1:] != hub.input_shape:
            raise UserError(
                f"the calibration images are {list(images.shape[1:])}; the network takes {list(hub.input_shape)}."
            )
    if how.rebalanced and (how.dtype == "int8" or (how.dtype == "int8-dynamic" and target == "tflite")):
        hub = rebalanced(hub, how.images)
    chosen, notices = forms_of(hub, target, how.dtype)
    chosen |= {name: tuple(given) for name, given in (forms or {}).items()}
    if target == "onnx":
        data = _onnx(hub, how, chosen, opset, fixed_size=fixed_size)
    else:
        data = _tflite(hub, how, chosen, batch)
    write_file(path, data, force)
    return notices


def rebalanced(hub: Hub, images: Sequence[np.ndarray] = ()) -> Hub:
    """A copy of ``hub`` with the factors of every layer rebalanced, by the ranges on ``images`` where there are any."""
    from .ranges import stage_ranges

    copy = hub.copy()
    ranges = stage_ranges(hub, images)
    for layer in hub.layers():
        if layer.factorized is not None:
            copy.factorize(layer.name, rebalance(layer.factorized, ranges.get(layer.name)))
    return copy


def _onnx(hub: Hub, how: Quantization, forms: Mapping[str, Sequence[str]], opset: int, *, fixed_size: bool) -> bytes:
    import onnx

    from edgekron.exporters.onnx import export_onnx

    from .onnx import convert

    plain = export_onnx(hub, forms=forms, opset=opset, fixed_size=fixed_size)
    if how.dtype == "float32":
        return plain.SerializeToString()
    proto, metadata = convert(plain, how)
    # The quantizer signs with its own name.
    proto.producer_name, proto.producer_version = plain.producer_name, plain.producer_version
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in plain.metadata_props} | metadata)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _tflite(hub: Hub, how: Quantization, forms: Mapping[str, Sequence[str]], batch: int) -> bytes:
    from edgekron.exporters.tflite import export_tflite

    from .tflite import convert

    plain = export_tflite(hub, forms=forms, batch=batch)
    return plain if how.dtype == "float32" else convert(plain, how, hub.input_name)
