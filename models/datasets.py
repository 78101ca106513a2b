"""Labelled image sets: the bundled Fashion-MNIST, and the user's own files.

A data set is named on the command line by one word:

====================================  ==================================================================
``fashion-mnist:test``                the 10,000 test images, bundled
``fashion-mnist:calibration``         the first 2,048 training images, bundled: calibration never sees the test
``fashion-mnist:train``               the 60,000 training images, from a folder of IDX files (see ``IDX_FOLDERS``)
``DIR``                               an image folder: one sub-folder a class
``FILE.npz``                          arrays ``images`` [N, H, W] or [N, H, W, C] and, where known, ``labels`` [N]
``FILE-idx3-ubyte[.gz]``              IDX images; labels from the ``-labels-idx1-ubyte`` file beside it
``FILE.bin``                          CIFAR-10 binary records
====================================  ==================================================================

Images stay uint8 in memory; ``ImageSet.batch`` gives the float32 NCHW array that a network takes.
"""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

BUNDLED = Path(__file__).parent / "data"

#: Where the training split is looked for, in this order.
IDX_FOLDERS = ("$EDGEKRON_DATA", "data/fashion-mnist", "/usr/share/datasets/fashion-mnist")

#: Mean and standard deviation of the pixels, in [0, 1], of the Fashion-MNIST training images.
FASHION_MNIST = ((0.2860,), (0.3530,))
#: The same for CIFAR-10 and ImageNet, by channel.
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class DataError(ValueError):
    """A data set that cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and the normalisation that networks trained on them expect.

    ``images`` is uint8 [N, H, W, C]; ``labels`` is int64 [N], all -1 where unknown; ``mean`` and ``std`` have one entry
    a channel, in units of full scale.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, count: int, seed: int = 0) -> ImageSet:
        """``count`` images drawn without replacement, in file order; all of them if there are fewer."""
        if count >= len(self):
            return self
        keep = np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))
        return replace(self, images=self.images[keep], labels=self.labels[keep])

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C] to float32 [n, C, H, W]."""
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        x: np.ndarray = (images.astype(np.float32) / np.float32(255.0) - mean) / std
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(float32 [n, C, H, W], int64 [n]) in order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.normalise(self.images[start : start + size]), self.labels[start : start + size]


def read_idx(path: Path) -> np.ndarray:
    """A uint8 IDX file, plain or gzipped."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
            raise DataError(f"{path} is not an IDX file of bytes; give the file as it was published.")
        shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", raw[3], 4))
        offset = 4 + 4 * len(shape)
        if len(raw) - offset != int(np.prod(shape)):
            raise DataError(f"{path} is truncated: {len(raw) - offset} bytes for shape {shape}; download it again.")
        return np.frombuffer(raw, np.uint8, offset=offset).reshape(shape)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path.") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({error}); download it again.") from None


def load(name: str) -> ImageSet:
    """Opens a data set by the word described at the top of this module.

    Raises ``DataError`` when it is unknown, unreadable or empty.
    """
    data = _fashion_mnist(name) if name.split(":", maxsplit=1)[0] == "fashion-mnist" else _from_path(name)
    if not len(data):
        raise DataError(f"data set {name} holds no image; give one with at least one.")
    return data


def _fashion_mnist(name: str) -> ImageSet:
    split = name.partition(":")[2] or "test"
    stems = {"test": "t10k", "calibration": "calibration", "train": "train"}
    if split not in stems:
        raise DataError(f"fashion-mnist has no split {split!r}; it has {', '.join(stems)}.")
    stem = stems[split]
    folders = [Path(os.path.expandvars(f)) for f in IDX_FOLDERS] if split == "train" else [BUNDLED]
    for folder in folders:
        images = folder / f"{stem}-images-idx3-ubyte.gz"
        if images.exists():
            labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)
            return ImageSet(name, read_idx(images)[..., None], labels, *FASHION_MNIST)
    raise DataError(
        f"the training images of Fashion-MNIST are not in {', '.join(IDX_FOLDERS)}; install the Debian package "
        "dataset-fashion-mnist, or set EDGEKRON_DATA to a folder with train-images-idx3-ubyte.gz."
    )


def _from_path(name: str) -> ImageSet:
    path = Path(name)
    if not path.exists():
        raise DataError(
            f"there is no data set {name!r}; use fashion-mnist:test, fashion-mnist:calibration, fashion-mnist:train, "
            "an image folder, or an .npz, IDX or CIFAR .bin file."
        )
    if path.is_dir():
        images, labels = _image_folder(path)
    elif path.suffix == ".npz":
        images, labels = _npz(path)
    elif path.suffix == ".bin":
        images, labels = _cifar(path)
    elif "idx3-ubyte" in path.name:
        images = read_idx(path)
        beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        labels = read_idx(beside).astype(np.int64) if beside.exists() else np.full(len(images), -1)
    else:
        raise DataError(f"{path} is no data set that can be read; use a folder, .npz, IDX or CIFAR .bin.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels):
        raise DataError(
            f"{path} holds images of shape {images.shape} and type {images.dtype} with {len(labels)} labels; "
            "uint8 [N, H, W, C] and as many labels are needed."
        )
    channels = images.shape[3]
    mean, std = (CIFAR10 if path.suffix == ".bin" else IMAGENET) if channels == 3 else FASHION_MNIST
    return ImageSet(name, images, labels.astype(np.int64), mean, std)


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
            labels = file["labels"] if "labels" in file else np.full(len(images), -1)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); it needs an array named images, uint8.") from None
    return images, labels


def _cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % 3073:
        raise DataError(f"{path} holds {raw.size} bytes, not a multiple of 3073; it is not a CIFAR-10 binary file.")
    records = raw.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def _image_folder(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image, UnidentifiedImageError

    classes = sorted(p for p in path.iterdir() if p.is_dir())
    images, labels = [], []
    for label, folder in enumerate(classes):
        for file in sorted(folder.iterdir()):
            try:
                with Image.open(file) as image:
                    mode = "L" if image.mode in ("1", "L", "I;16") else "RGB"
                    pixels = np.asarray(image.convert(mode))
            except (UnidentifiedImageError, OSError):
                raise DataError(f"{file} is not an image that can be read; remove it or repair it.") from None
            images.append(pixels)
            labels.append(label)
    if not images:
        raise DataError(f"{path} holds no image; it needs one sub-folder of images for each class.")
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{path} holds images of {len(shapes)} shapes, such as {sorted(shapes)[:2]}; resize them.")
    return np.stack(images), np.asarray(labels)
