"""Where a network comes from: a bundled name, a file, a compressed folder, or a factory of the user's."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from edgekron.graph import Hub


@dataclass(frozen=True)
class Source:
    """An opened MODEL: its name for reports, its hub, and the torch module it came from, if it did."""

    name: str
    hub: Hub
    module: nn.Module | None = None


def open_model(
    text: str, *, weights: str | None = None, input_shape: tuple[int, ...] | None = None, dequantize: bool = False
) -> Source:
    """Opens the model that ``text`` names.

    A factory needs ``input_shape`` [C, H, W] to be traced, and takes ``weights`` from a safetensors file; an .onnx file
    whose height and width are open is given those of ``input_shape``; one that is quantized is folded back to float by
    ``dequantize``. Raises ``UserError``, for an unknown name with
    the nearest one.
    """
    from edgekron import graph, models
    from edgekron.compression import artifact

    path = Path(text)
    if text in models.NETWORKS:
        module = models.load(text)
        return Source(text, graph.load(module, input_shape=models.NETWORKS[text].input_shape), module)
    if path.is_dir():
        return Source(path.name, artifact.read_hub(path))
    if path.suffix in (".onnx", ".pt2"):
        # The path, so that a file called like a bundled network is not taken for it later.
        return Source(text, graph.load(path, input_shape=input_shape, dequantize=dequantize))
    if ":" in text:
        module = _from_factory(text, weights)
        if input_shape is None:
            raise UserError(f"{text} needs --input-shape C,H,W to be traced.")
        return Source(text, graph.load(module, input_shape=input_shape), module)
    near = difflib.get_close_matches(text, models.NETWORKS, 1)
    remedy = f"did you mean {near[0]}? Otherwise give" if near else "give"
    raise UserError(
        f"there is no model {text!r}; {remedy} a bundled name (see `edgekron models`), an .onnx or .pt2 file, a folder "
        "written by compress, or package.module:factory."
    )


def _from_factory(text: str, weights: str | None) -> nn.Module:
    import safetensors.torch
    from torch import nn

    module_name, _, attribute = text.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{text} cannot be imported ({error}); check the name and the PYTHONPATH.") from None
    try:
        model = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:
        raise UserError(f"{text} cannot be called without arguments ({error}); name a factory that can.") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{text} gives a {type(model).__name__}, not a torch.nn.Module.")
    if weights is not None:
        try:
            model.load_state_dict(safetensors.torch.load_file(weights))
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            raise UserError(f"the weights {weights} do not fit {text}: {str(error).splitlines()[0]}") from None
    return model.eval()
