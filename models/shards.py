"""WebDataset shards: tar files in which each image is two members, a picture and a class.

    train-{000..011}.tar        000.jpg  000.cls  001.jpg  001.cls ...

Members of one image share the name up to the first dot. ``cls`` is a number in text; an image without this member has
no known class. Shards are read by the standard library: first an index, and later each picture that is asked for.
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekron.errors import DataError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Member:
    """A picture in a shard, at an offset in bytes."""

    shard: Path
    name: str
    offset: int
    size: int

    def open(self) -> io.BytesIO:
        """The picture's bytes."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"


def shard_files(name: str) -> list[Path]:
    """The files that ``name`` stands for: one, or all of a range such as ``train-{000..011}.tar``.

    Raises ``DataError`` for one that does not exist.
    """
    found = _RANGE.search(name)
    if found is None:
        names = [name]
    else:
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        names = [name[: found.start()] + str(n).zfill(len(first)) + name[found.end() :] for n in numbers]
    if missing := [n for n in names if not Path(n).is_file()]:
        raise DataError(f"there is no shard {missing[0]}; check the range.")
    return [Path(n) for n in names]


def shard_members(name: str) -> tuple[list[Member], np.ndarray]:
    """(pictures, int64 labels) of all shards in order, -1 where unknown. Raises ``DataError``."""
    from PIL import Image

    endings = {ending.removeprefix(".") for ending in Image.registered_extensions()}
    pictures: list[tuple[str, Member]] = []
    labels: dict[str, int] = {}
    for shard in shard_files(name):
        try:
            with tarfile.open(shard, "r:") as archive:
                for info in archive:
                    stem, _, ending = info.name.rpartition("/")[2].partition(".")
                    key = f"{shard}:{info.name.rpartition('/')[0]}/{stem}"
                    if info.isfile() and ending.lower() in endings:
                        pictures.append((key, Member(shard, info.name, info.offset_data, info.size)))
                    elif info.isfile() and ending == "cls":
                        file = archive.extractfile(info)
                        labels[key] = int(file.read()) if file is not None else -1
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DataError(
                f"the shard {shard} cannot be read ({error}); it must be a tar file, uncompressed."
            ) from None
    if not pictures:
        raise DataError(f"{name} holds no picture; a shard has members such as 000.jpg and 000.cls.")
    return [member for _, member in pictures], np.array([labels.get(key, -1) for key, _ in pictures], np.int64)
