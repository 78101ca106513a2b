"""One function for every format and type: from a hub to a file that a runtime opens.

    notices = export(hub, "network.tflite", ExportSettings(Quantization("int8", images)))

The float32 file is written first (``exporters.onnx``, ``exporters.tflite``); the quantizer of the format then makes the
smaller types of that file (``exporters.quantize``). Heavy packages are imported by the function, not by this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError
from edgekron.files import refuse_existing, write_file

from .quantize.types import Quantization, computes_in_integers

if TYPE_CHECKING:
    import numpy as np

    from edgekron.graph import Hub
    from edgekron.graph.identity import Identity

#: Formats of files, each the ending of its files' names.
FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class ExportSettings:
    """How a network is written to a file.

    ``forms`` gives the forms of some factorized layers by name, ahead of the forms in the hub. ``opset`` (None: the
    hub's own) and ``fixed_size`` are for ONNX, see ``export_onnx``; ``batch`` and ``layout`` are for TFLite, see
    ``export_tflite``.
    """

    quantization: Quantization = field(default_factory=Quantization)
    forms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    opset: int | None = None
    fixed_size: bool = False
    batch: int = 1
    layout: str = "nhwc"


def export(hub: Hub, path: str | Path, settings: ExportSettings | None = None, *, force: bool = False) -> list[str]:
    """Writes ``path`` (.onnx or .tflite), float32 without ``settings``; gives the notices that the user should see.

    The hub stays as it is. Raises ``UserError`` for an ending that is no format, a ``path`` that exists (unless
    ``force``), calibration images that do not fit the network, settings that do not go together, and everything that
    the format's exporter refuses.
    """
    from edgekron.graph.passes.dequantize import check_float

    from .quantize.forms import forms_of
    from .quantize.joins import refuse_integer_joins

    settings = settings or ExportSettings()
    how = settings.quantization
    refuse_existing(path, force)
    target = Path(path).suffix.removeprefix(".")
    if target not in FORMATS:
        raise UserError(f"{path} should end in .onnx or .tflite; runtimes go by the name.")
    if settings.layout != "nhwc" and (target != "tflite" or how.dtype != "float32"):
        raise UserError(f"--layout {settings.layout} is for float32 TFLite files; leave it out.")
    for images in how.images:
        if images.shape[1:] != hub.input_shape:
            raise UserError(
                f"the calibration images are {list(images.shape[1:])}; the network takes {list(hub.input_shape)}."
            )
        hub.inputs[0].check_type(images)
    check_float(hub.model, "the network", "give --dequantize to fold it back to float, or export the float model.")
    if how.integer_io:
        refuse_integer_joins(hub, how.images)
    # Rebalanced factors are other numbers of the same network.
    identity = hub.identity
    if how.rebalanced and computes_in_integers(how.dtype, target):
        hub = rebalanced(hub, how.images)
    forms, notices = forms_of(hub, target, how.dtype)
    forms |= {name: tuple(given) for name, given in settings.forms.items()}
    data, more = (_onnx if target == "onnx" else _tflite)(hub, settings, forms, identity)
    write_file(path, data, force)
    return notices + more


def rebalanced(hub: Hub, images: Sequence[np.ndarray] = ()) -> Hub:
    """A copy of ``hub`` with the factors of every layer rebalanced, by the ranges on ``images`` if there are any."""
    from .quantize.ranges import stage_ranges
    from .quantize.rebalance import rebalance

    copy = hub.copy()
    ranges = stage_ranges(hub, images)
    for layer in hub.layers():
        if layer.factorized is not None:
            copy.factorize(layer.name, rebalance(layer.factorized, ranges.get(layer.name)))
    return copy


def _onnx(
    hub: Hub, settings: ExportSettings, forms: Mapping[str, Sequence[str]], identity: Identity
) -> tuple[bytes, list[str]]:
    """The bytes of an ONNX file, and notices of a size that is fixed and of int8 that is slower."""
    import onnx

    from .onnx import export_onnx, size_notice

    plain = export_onnx(hub, forms=forms, opset=settings.opset, fixed_size=settings.fixed_size, identity=identity)
    if settings.quantization.dtype == "float32":
        return plain.SerializeToString(), [] if settings.fixed_size else size_notice(hub, forms)
    from .quantize.onnx import convert
    from .quantize.speed import speed_notice, with_size

    proto, metadata = convert(plain, settings.quantization)
    # The quantizer signs with its own name.
    proto.producer_name, proto.producer_version = plain.producer_name, plain.producer_version
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in plain.metadata_props} | metadata)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    if settings.quantization.dtype != "int8":
        return data, []
    return data, speed_notice(with_size(plain, hub.input_shape), with_size(proto, hub.input_shape), "onnx")


def _tflite(
    hub: Hub, settings: ExportSettings, forms: Mapping[str, Sequence[str]], identity: Identity
) -> tuple[bytes, list[str]]:
    """The bytes of a TFLite file, and a notice of int8 that is slower."""
    from .tflite import export_tflite

    integers = settings.quantization.dtype == "int8"
    plain = export_tflite(
        hub, forms=forms, batch=settings.batch, layout=settings.layout, integers=integers, identity=identity
    )
    if settings.quantization.dtype == "float32":
        return plain, []
    from .quantize.speed import speed_notice
    from .quantize.tflite import convert

    data = convert(plain, settings.quantization, hub.input_name)
    return data, speed_notice(plain, data, "tflite") if integers else []
