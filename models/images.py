"""Folders of image files, made to fit a network's input.

``DIR/CLASS/*.png`` has labels, ``DIR/*.png`` has none. Files that do not end like an image (annotations, notes) are
passed over. An image of another size is made to fit by one of these rules:

=============  ==========================================================================
``crop``       scaled until it covers the input, the rest cut off evenly (classification)
``stretch``    each axis by itself
``pad``        scaled until it fits, the rest filled with grey (detection)
=============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import DataError

from .shards import Member

if TYPE_CHECKING:
    from PIL import Image

FITS = ("crop", "stretch", "pad")
_GREY = 114
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def image_files(folder: Path) -> tuple[list[Path], np.ndarray]:
    """(files, int64 labels): by sub-folder in the order of their names, or, without sub-folders, all -1.

    Raises ``DataError`` when there is none.
    """
    from PIL import Image

    endings = Image.registered_extensions()
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    pairs = [
        (file, label if classes else -1)
        for label, part in enumerate(classes or [folder])
        for file in sorted(part.iterdir())
        if file.suffix.lower() in endings and not file.name.startswith(".")
    ]
    if not pairs:
        raise DataError(f"{folder} holds no image; put images into it, or into one sub-folder for each class.")
    return [file for file, _ in pairs], np.array([label for _, label in pairs], np.int64)


def read_images(files: Sequence[Path | Member], shape: tuple[int, int, int] | None, fit: str = "crop") -> np.ndarray:
    """uint8 [N, H, W, C] of ``shape`` (C, H, W); without a shape, that of the files, which must then all agree.

    Images that are made to fit are kept in an unnamed file. Raises ``DataError`` for a file that cannot be read, images
    of several shapes, and a number of channels that images do not have.
    """
    if shape is None:
        return _as_they_are(files)
    channels, height, width = shape
    if channels not in _MODES:
        raise DataError(
            f"the network takes {channels} channels, and images have 1, 3 or 4; give an .npz with an array named "
            f"inputs, float32 [N, {channels}, {height}, {width}]."
        )
    with TemporaryFile(prefix="edgekron-images-") as file:
        pixels = np.memmap(file, np.uint8, "w+", shape=(len(files), height, width, channels))
        for index, path in enumerate(files):
            pixels[index] = _fitted(path, _MODES[channels], (width, height), fit).reshape(height, width, channels)
    return pixels


def resized(images: np.ndarray, shape: tuple[int, int, int], fit: str = "crop") -> np.ndarray:
    """uint8 [N, H, W, C] of images [N, h, w, C], at the height and width of ``shape`` (C, H, W)."""
    from PIL import Image

    _, height, width = shape
    if images.shape[1:3] == (height, width) or images.shape[3] not in _MODES:
        return images
    squeezed = images[..., 0] if images.shape[3] == 1 else images
    parts = [np.asarray(_fit(Image.fromarray(image), (width, height), fit)) for image in squeezed]
    return np.stack(parts).reshape(len(images), height, width, images.shape[3])


def _as_they_are(files: Sequence[Path | Member]) -> np.ndarray:
    images = [_fitted(path, None, None, "") for path in files]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        first = files[0]
        folder = first.shard if isinstance(first, Member) else first.parent
        raise DataError(f"{folder} holds images of {len(shapes)} shapes, such as {sorted(shapes)[:2]}; resize them.")
    return np.stack(images)


def _fitted(path: Path | Member, mode: str | None, size: tuple[int, int] | None, fit: str) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path.open() if isinstance(path, Member) else path) as opened:
            image = ImageOps.exif_transpose(opened)
            image = image.convert(mode or ("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{path} is not an image that can be read; remove it or repair it.") from None
    return np.asarray(image if size is None else _fit(image, size, fit))


def _fit(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    from PIL import Image, ImageOps

    method = Image.Resampling.BILINEAR
    if image.size == size:
        return image
    if fit == "stretch":
        return image.resize(size, method)
    if fit == "pad":
        grey = _GREY if image.mode == "L" else (_GREY,) * len(image.getbands())
        return ImageOps.pad(image, size, method, color=grey)
    return ImageOps.fit(image, size, method)
