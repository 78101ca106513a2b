"""The options MODEL and DATA: the network and the images that a command works on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from edgekron.graph import NetworkInput
    from edgekron.models.datasets import ImageSet
    from edgekron.models.sources import Source


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """The positional MODEL, and the options that some kinds of models need."""
    parser.add_argument(
        name,
        metavar=name.upper(),
        help="a bundled name (see `edgekron models`), an .onnx or .pt2 file, a folder written by compress, or "
        "package.module:factory",
    )
    add_factory(parser)


def add_factory(parser: argparse.ArgumentParser) -> None:
    """The options that package.module:factory and quantized files need."""
    parser.add_argument("--weights", metavar="FILE", help="safetensors weights for package.module:factory")
    parser.add_argument("--input-shape", metavar="C,H,W", help="input of package.module:factory, such as 3,224,224")
    parser.add_argument(
        "--dequantize", action="store_true", help="fold an ONNX file that is quantized already back to float"
    )


def open_source(text: str, arguments: argparse.Namespace) -> Source:
    """Opens MODEL with the options of ``add_model``. Raises ``UserError``."""
    from edgekron.models.sources import open_model

    return open_model(
        text,
        weights=arguments.weights,
        input_shape=input_shape(arguments.input_shape),
        dequantize=arguments.dequantize,
    )


def input_shape(text: str | None) -> tuple[int, ...] | None:
    """The sizes of ``--input-shape``, None where the option is not given. Raises ``UserError``."""
    if text is None:
        return None
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UserError(f"--input-shape {text!r} must be positive numbers such as 3,224,224.")
    return shape


def add_data(parser: argparse.ArgumentParser, images: int | None = 2048, use: str = "calibration") -> None:
    """The options that name the images, and say how images become inputs of the network."""
    from edgekron.models.images import FITS
    from edgekron.models.pixels import ORDERS, RANGES

    group = parser.add_argument_group(f"{use} images")
    group.add_argument(
        "--data",
        metavar="DATA",
        help="a folder of images, an .npz with images (uint8, NHWC) or inputs (of the network's type and axes), "
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
        "or MEAN/STD by channel in units of full scale; default: imagenet for colour; a network whose input is uint8 "
        "takes the bytes",
    )
    group.add_argument("--channels", choices=ORDERS, help="order of the colours that the network takes (default: rgb)")


def calibration(arguments: argparse.Namespace, inputs: Sequence[NetworkInput]) -> Sequence[np.ndarray]:
    """The batches that the options of ``add_data`` ask for, for a network with these inputs; none without ``--data``.

    Images become what the network takes when a batch is taken, and not before. Raises ``UserError`` and ``DataError``.
    """
    _check_images(arguments)
    if arguments.data is None:
        if given := [name for name in ("fit", "pixels", "channels") if getattr(arguments, name) is not None]:
            raise UserError(f"--{given[0]} says how to take the images of --data; give --data too.")
        return []
    from edgekron.models.datasets import Batches

    return Batches(image_set(arguments, inputs))


def image_set(arguments: argparse.Namespace, inputs: Sequence[NetworkInput]) -> ImageSet:
    """The images that the options of ``add_data`` ask for, made to fit the one input of a network.

    Raises ``UserError`` and ``DataError``.
    """
    from edgekron.models import datasets

    _check_images(arguments)
    entry = inputs[0]
    if arguments.pixels is not None and entry.dtype.startswith(("int", "uint")):
        raise UserError(f"the input {entry.name} takes bytes as they are ({entry.dtype}); leave --pixels out.")
    images = datasets.load(
        arguments.data,
        shape=entry.image or entry.shape,
        limit=arguments.images,
        fit=arguments.fit,
        pixels=arguments.pixels,
        order=arguments.channels,
        dtype=entry.dtype,
    ).fed_to(entry)
    found = tuple(images.normalise(images.images[:1]).shape[1:])
    if found != entry.shape:
        channels = (entry.channels or 1) - 1
        remedy = (
            "give --fit crop, stretch or pad"
            if len(found) == 3 == len(entry.shape) and found[channels] == entry.shape[channels]
            else f"give an .npz with an array named inputs, {entry.dtype}, of that shape"
        )
        order = "(H, W, C)" if entry.channels_last else "(C, H, W)"
        raise UserError(
            f"the images of {arguments.data} have shape {list(found)} {order}; the model's input is "
            f"{list(entry.shape)}; {remedy}."
        )
    return images


def _check_images(arguments: argparse.Namespace) -> None:
    if arguments.images is not None and arguments.images < 1:
        raise UserError(f"--images {arguments.images} must be at least 1.")
