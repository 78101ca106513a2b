"""What MODEL and DATA stand for on the command line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from edgekron.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgekron.graph import Hub
    from edgekron.models.datasets import ImageSet

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


def add_data(parser: argparse.ArgumentParser, images: int | None = 2048, use: str = "calibration") -> None:
    """The options that say which images are used, and what the network takes their pixels for."""
    from edgekron.models.images import FITS
    from edgekron.models.pixels import ORDERS, RANGES

    group = parser.add_argument_group(f"{use} images")
    group.add_argument(
        "--data",
        metavar="DATA",
        help="a folder of images, an .npz with images (uint8, NHWC) or inputs (float32, as the network takes them), "
        "fashion-mnist:calibration, IDX or CIFAR .bin files",
    )
    group.add_argument(
        "--images",
        type=int,
        default=images,
        metavar="N",
        help=f"use at most N of them (default: {images or 'all'})",
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        help="how images of another size are made to fit: crop (default for a folder), stretch, pad with grey",
    )
    group.add_argument(
        "--pixels",
        metavar="RANGE",
        help=f"what the network takes pixels for: {', '.join(RANGES)} (byte: 0 to 255, unit: 0 to 1, signed: -1 to 1), "
        "or MEAN/STD by channel in units of full scale; default: imagenet for colour",
    )
    group.add_argument("--channels", choices=ORDERS, help="order of the colours that the network takes (default: rgb)")


def calibration(arguments: argparse.Namespace, shape: tuple[int, ...]) -> Sequence[np.ndarray]:
    """The batches that the options of ``add_data`` ask for, for an input [C, H, W]; none without ``--data``.

    Images become float32 when a batch is taken, and not before. Raises ``UserError`` and ``DataError``.
    """
    _check_images(arguments)
    if arguments.data is None:
        if given := [name for name in ("fit", "pixels", "channels") if getattr(arguments, name) is not None]:
            raise UserError(f"--{given[0]} says how to take the images of --data; give --data too.")
        return []
    return Batches(image_set(arguments, shape))


def image_set(arguments: argparse.Namespace, shape: tuple[int, ...]) -> ImageSet:
    """The images that the options of ``add_data`` ask for, made to fit an input [C, H, W].

    Raises ``UserError`` and ``DataError``.
    """
    from edgekron.models import datasets

    _check_images(arguments)
    images = datasets.load(
        arguments.data,
        shape=shape,
        limit=arguments.images,
        fit=arguments.fit,
        pixels=arguments.pixels,
        order=arguments.channels,
    )
    found = tuple(images.normalise(images.images[:1]).shape[1:])
    if found != tuple(shape):
        remedy = (
            "give --fit crop, stretch or pad"
            if len(found) == 3 == len(shape) and found[0] == shape[0]
            else ("give an .npz with an array named inputs, float32, of that shape")
        )
        raise UserError(
            f"the images of {arguments.data} have shape {list(found)} (C, H, W); the model's input is {list(shape)}; "
            f"{remedy}."
        )
    return images


def _check_images(arguments: argparse.Namespace) -> None:
    if arguments.images is not None and arguments.images < 1:
        raise UserError(f"--images {arguments.images} must be at least 1.")


class Batches(Sequence["np.ndarray"]):
    """The images of a set in batches float32 [n, C, H, W], made when they are asked for."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __len__(self) -> int:
        return math.ceil(len(self._images) / CALIBRATION_BATCH)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = range(len(self))[index] * CALIBRATION_BATCH
        batch: np.ndarray = self._images.normalise(self._images.images[start : start + CALIBRATION_BATCH])
        return batch


def calibration_batches(data: str, limit: int) -> Sequence[np.ndarray]:
    """Batches of at most ``limit`` images of a data set whose images fit as they are, drawn at random."""
    from edgekron.models import datasets

    return Batches(datasets.load(data, limit=limit))
