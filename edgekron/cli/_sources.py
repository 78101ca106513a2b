"""What MODEL and DATA stand for on the command line."""

from __future__ import annotations

import argparse
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgekron.graph import Hub

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Source:
    """An opened MODEL: its name for reports, its hub, and the torch module it came from, if it did."""

    name: str
    hub: Hub
    module: nn.Module | None = None


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """The positional MODEL and the options that some kinds of it need."""
    parser.add_argument(
        name,
        metavar=name.upper(),
        help="a bundled name (see `edgekron models`), an .onnx or .pt2 file, a folder written by compress, or "
        "package.module:factory",
    )
    add_factory(parser)


def add_factory(parser: argparse.ArgumentParser) -> None:
    """The options that package.module:factory needs."""
    parser.add_argument("--weights", metavar="FILE", help="safetensors weights for package.module:factory")
    parser.add_argument("--input-shape", metavar="C,H,W", help="input of package.module:factory, such as 3,224,224")


def open_model(text: str, arguments: argparse.Namespace) -> Source:
    """Opens MODEL. Raises ``UserError``, for an unknown name with the nearest one."""
    from edgekron import artifact, graph, models

    path = Path(text)
    if text in models.NETWORKS:
        module = models.load(text)
        return Source(text, graph.load(module, input_shape=models.NETWORKS[text].input_shape), module)
    if path.is_dir():
        return Source(path.name, artifact.read_hub(path))
    if path.suffix in (".onnx", ".pt2"):
        # The path, so that a file called like a bundled network is not taken for it later.
        return Source(text, graph.load(path, input_shape=_shape(arguments.input_shape)))
    if ":" in text:
        module = _from_factory(text, arguments.weights)
        shape = _shape(arguments.input_shape)
        if shape is None:
            raise UserError(f"{text} needs --input-shape C,H,W to be traced.")
        return Source(text, graph.load(module, input_shape=shape), module)
    near = difflib.get_close_matches(text, models.NETWORKS, 1)
    remedy = f"did you mean {near[0]}? Otherwise give" if near else "give"
    raise UserError(
        f"there is no model {text!r}; {remedy} a bundled name (see `edgekron models`), an .onnx or .pt2 file, a folder "
        "written by compress, or package.module:factory."
    )


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UserError(f"--input-shape {text!r} must be positive numbers such as 3,224,224.")
    return shape


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


def calibration_batches(data: str | None, limit: int) -> list[np.ndarray]:
    """Batches of at most ``limit`` images of DATA, drawn at random; none without DATA."""
    from edgekron.models import datasets

    if data is None:
        return []
    images = datasets.load(data).subset(limit)
    return [x for x, _ in images.batches(CALIBRATION_BATCH)]
