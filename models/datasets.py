"""Image sets: the bundled Fashion-MNIST, and the user's own files.

A data set is named on the command line by one word:

====================================  ==================================================================
``fashion-mnist:test``                the 10,000 test images, bundled
``fashion-mnist:calibration``         the first 2,048 training images, bundled: calibration never sees the test
``fashion-mnist:train``               the 60,000 training images, from a folder of IDX files (see ``IDX_FOLDERS``)
``DIR``                               an image folder: one sub-folder a class, or all images in it, without labels
``FILE.npz``                          arrays ``images``, uint8 [N, H, W] or [N, H, W, C], and, where known, ``labels``
                                      [N]; or ``inputs``, float32 [N, ...]: the network's inputs, ready to use
``FILE-idx3-ubyte[.gz]``              IDX images; labels from the ``-labels-idx1-ubyte`` file beside it
``FILE.bin``                          CIFAR-10 binary records
``FILE-{000..011}.tar``, ``FILE.tar``  WebDataset shards (see ``edgekron.models.shards``)
====================================  ==================================================================

Images stay uint8; ``ImageSet.batches`` gives the arrays that a network takes: float32 [N, C, H, W], or the axes and the
type of the network's own input (``ImageSet.fed_to``).
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from edgekron.errors import DataError

from .images import image_files, read_images, resized
from .pixels import CIFAR10, FASHION_MNIST, IMAGENET, Normalisation, normalisation
from .shards import Member, shard_members

if TYPE_CHECKING:
    from edgekron.graph import NetworkInput

#: Types of an input that images can have: integers take the bytes as they are.
FED = ("float32", "float64", "float16", "uint8", "int16", "uint16", "int32", "int64")
BUNDLED = Path(__file__).parent / "data"

#: Folders in which the training split is looked for, in this order.
IDX_FOLDERS = ("$EDGEKRON_DATA", "data/fashion-mnist", "/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and the normalisation that networks trained on them expect.

    ``images`` is uint8 [N, H, W, C]; ``labels`` is int64 [N], all -1 where unknown; ``mean`` and ``std`` have one entry
    a channel, in units of full scale. With ``reverse`` the network takes the channels backwards: blue, green, red; with
    ``channels_last`` the network takes [N, H, W, C]. A network whose input type ``dtype`` is an integer takes the bytes
    as they are, without ``mean`` and ``std``.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse: bool = False
    channels_last: bool = False
    dtype: str = "float32"

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, count: int, seed: int = 0) -> ImageSet:
        """``count`` images drawn without replacement, in file order; all of them if there are fewer."""
        if count >= len(self):
            return self
        keep = _drawn(len(self), count, seed)
        return replace(self, images=self.images[keep], labels=self.labels[keep])

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C] to what the network takes: float32 [n, C, H, W] unless the set says otherwise."""
        x: np.ndarray = images
        if np.dtype(self.dtype).kind == "f":
            mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
            x = (images.astype(np.float32) / np.float32(255.0) - mean) / std
        x = x[..., ::-1] if self.reverse else x
        return np.ascontiguousarray(x if self.channels_last else x.transpose(0, 3, 1, 2), self.dtype)

    def fed_to(self, entry: NetworkInput) -> ImageSet:
        """The same images as inputs of a network: in the order of its axes and of its type.

        Raises ``DataError`` for a type that images cannot have.
        """
        if entry.dtype not in FED:
            raise DataError(
                f"the input {entry.name} is {entry.dtype}, which images cannot become; give an .npz with an array "
                f"named inputs, {entry.dtype} {['N', *entry.shape]}."
            )
        return replace(self, channels_last=entry.channels_last, dtype=entry.dtype)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(inputs as ``normalise`` gives them, int64 [n]) in order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.normalise(self.images[start : start + size]), self.labels[start : start + size]


@dataclass(frozen=True)
class InputSet(ImageSet):
    """Inputs that are ready for a network: ``images`` is [N, ...] of the network's type, and taken unchanged."""

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """The same array."""
        return np.ascontiguousarray(images)

    def fed_to(self, entry: NetworkInput) -> ImageSet:
        """The same inputs. Raises ``DataError`` for inputs of another type than the network's."""
        if self.images.dtype.name != entry.dtype:
            raise DataError(
                f"{self.name} holds inputs of type {self.images.dtype}; the input {entry.name} is {entry.dtype}."
            )
        return self


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


def load(
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
    limit: int | None = None,
    fit: str | None = None,
    pixels: str | None = None,
    order: str | None = None,
    dtype: str = "float32",
) -> ImageSet:
    """Opens a data set by the word described at the top of this module.

    ``shape`` [C, H, W] is that of the network's image, whatever the order of its axes; images of another shape are made
    to fit by the rule ``fit`` (see ``edgekron.models.images``). ``pixels`` and ``order`` are the numbers and the order
    of colours that the network was trained on (see ``edgekron.models.pixels``); without them, those of the kind of
    file. Inputs that are ready for the network must be ``dtype``. At most ``limit`` images are drawn. Raises
    ``DataError`` when the set is unknown, unreadable or empty, or cannot be made to fit.
    """
    image = (shape[0], shape[1], shape[2]) if shape is not None and len(shape) == 3 else None
    if name.split(":", maxsplit=1)[0] == "fashion-mnist":
        data = _fashion_mnist(name)
    elif Path(name).is_dir() or name.endswith(".tar"):
        data = _image_files(name, image, limit, fit or "crop")
    else:
        data = _from_path(name, dtype)
    if not len(data):
        raise DataError(f"data set {name} holds no image; give one with at least one.")
    if limit is not None:
        data = data.subset(limit)
    if isinstance(data, InputSet):
        if fit or pixels or order:
            raise DataError(f"{name} holds inputs, which are taken as they are; leave fit, pixels and order out.")
        return data
    channels = data.images.shape[3]
    if image is not None and fit is not None:
        data = replace(data, images=resized(data.images, image, fit))
    if pixels is not None:
        mean, std = normalisation(pixels, channels)
        data = replace(data, mean=mean, std=std)
    return replace(data, reverse=order == "bgr")


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


def _from_path(name: str, dtype: str) -> ImageSet:
    path = Path(name)
    if not path.exists():
        raise DataError(
            f"there is no data set {name!r}; use fashion-mnist:test, fashion-mnist:calibration, fashion-mnist:train, "
            "an image folder, .tar shards, or an .npz, IDX or CIFAR .bin file."
        )
    if path.suffix == ".npz":
        images, labels, ready = _npz(path, dtype)
        if ready:
            return InputSet(name, images, labels.astype(np.int64), (), ())
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
    mean, std = CIFAR10 if path.suffix == ".bin" else _known(images.shape[3])
    return ImageSet(name, images, labels.astype(np.int64), mean, std)


def _known(channels: int) -> Normalisation:
    """The normalisation of images of unknown origin."""
    return IMAGENET if channels == 3 else FASHION_MNIST


def _npz(path: Path, dtype: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """(images or inputs, labels, whether they are inputs); inputs are ``dtype``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            what = "inputs" if "inputs" in file else "images"
            images = file[what]
            labels = file["labels"] if "labels" in file else np.full(len(images), -1)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); it needs an array named images, uint8, or inputs, float32."
        ) from None
    if what == "inputs" and (images.dtype.name != dtype or images.ndim < 2 or len(labels) != len(images)):
        raise DataError(
            f"{path} holds inputs of shape {list(images.shape)} and type {images.dtype}; {dtype} [N, ...] is needed."
        )
    if what == "inputs" and not np.isfinite(images).all():
        raise DataError(f"{path} holds inputs that are NaN or infinite; leave them out.")
    if what == "images" and images.dtype == np.float32:
        raise DataError(f"{path} holds images of type float32; name the array inputs if it is what the network takes.")
    return images, labels, what == "inputs"


def _cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % 3073:
        raise DataError(f"{path} holds {raw.size} bytes, not a multiple of 3073; it is not a CIFAR-10 binary file.")
    records = raw.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def _image_files(name: str, shape: tuple[int, int, int] | None, limit: int | None, fit: str) -> ImageSet:
    files: Sequence[Path | Member]
    files, labels = image_files(Path(name)) if Path(name).is_dir() else shard_members(name)
    keep = _drawn(len(files), limit)
    images = read_images([files[i] for i in keep], shape, fit)
    return ImageSet(name, images, labels[keep], *_known(images.shape[3]))


def _drawn(total: int, count: int | None, seed: int = 0) -> np.ndarray:
    """Indices of ``count`` of ``total`` things drawn without replacement, in order; all of them if there are fewer."""
    if count is None or count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


CALIBRATION_BATCH = 32


class Batches(Sequence[np.ndarray]):
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
    return Batches(load(data, limit=limit))
