"""TFLite files without TensorFlow: a hub's graph in NHWC, float32, written straight as a flatbuffer.

    data = export_tflite(hub, "network.tflite")

Inputs and outputs with four axes are [N, H, W, C] in the file, unless ``layout`` says otherwise; all others have the
axes of ONNX. The batch is fixed. Each ONNX operator has one translator in ``operators``; factorized layers are written
by ``factorized``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.files import write_file

from .convert import DEFAULT_LAYOUT, LAYOUTS, convert
from .translation import UnsupportedError
from .writer import pack

if TYPE_CHECKING:
    from edgekron.graph import Hub
    from edgekron.graph.identity import Identity

__all__ = ["LAYOUTS", "UnsupportedError", "export_tflite"]


def export_tflite(
    hub: Hub,
    path: str | Path | None = None,
    *,
    force: bool = False,
    forms: Mapping[str, Sequence[str]] | None = None,
    batch: int = 1,
    layout: str = DEFAULT_LAYOUT,
    integers: bool = False,
    identity: Identity | None = None,
) -> bytes:
    """The bytes of the TFLite file of ``hub``, written to ``path`` if one is given.

    ``forms`` maps names of factorized layers to the form of each stage ("grouped", "fold", "mix", or ("dense",) for the
    whole layer), ahead of the forms in the hub. ``layout`` is that of inputs and outputs with four axes, "nhwc" or
    "nchw". With ``integers`` the float32 file is one to be quantized to int8, see ``integers``. ``identity`` is that of
    the network if the hub holds it in other numbers. Raises ``UnsupportedError`` with the name of every node that has
    no exact translation, and ``UserError`` when ``path`` exists and ``force`` is not set; nothing is written then.
    """
    program = convert(hub.model, batch=batch, forms=forms, layout=layout, integers=integers)
    data = pack(program, identity=identity or hub.identity)
    if path is not None:
        write_file(path, data, force)
    return data
