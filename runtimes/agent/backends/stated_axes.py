"""The axes that a TFLite file states of its inputs and outputs, read from the file's metadata.

A TFLite file has no word for the order of axes; readers take four axes for [N, H, W, C]. A file whose inputs or outputs
have other axes, or come from a network with other axes, has them in its metadata under ``AXES``, as JSON:
{"inputs": [[axes in the file, axes in the network], null, ...], "outputs": [...]}, where axes are "NCHW", "NHWC" or
"plain", and null stands for what readers assume.

The interpreter does not hand out metadata, so this module follows the offsets of the flatbuffer itself.
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from pathlib import Path

    Data = bytes | mmap.mmap
    #: (axes in the file, axes in the network) of every input or output; None for what readers assume.
    Ends = dict[str, list[list[str] | None]]

#: The metadata entry with the axes of inputs and outputs.
AXES = "edgekron_axes"

#: Fields of the schema's tables by their number.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_METADATA_NAME, _METADATA_BUFFER = 0, 1
_BUFFER_DATA = 0


def stated_axes(path: Path) -> Ends:
    """What the file states under ``AXES``; nothing for a file without. Raises ``RuntimeFailure`` when damaged."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return axes_of(data)
    except (struct.error, ValueError, TypeError) as error:
        raise RuntimeFailure(f"{path}: its metadata {AXES} is damaged ({error}); export it again.") from None


def axes_of(data: Data) -> Ends:
    """What the bytes of a file state under ``AXES``."""
    text = metadata(data, AXES)
    return {} if text is None else dict(json.loads(text))


def metadata(data: Data, name: str) -> bytes | None:
    """The bytes of one entry of a TFLite file's metadata; None where there is none."""
    model = _follow(data, 0)
    entries = _field(data, model, _MODEL_METADATA)
    for entry in _tables(data, entries):
        where = _field(data, entry, _METADATA_NAME)
        if where is None or _vector(data, where) != name.encode():
            continue
        at = _field(data, entry, _METADATA_BUFFER)
        index = 0 if at is None else struct.unpack_from("<I", data, at)[0]
        content = _field(data, _tables(data, _field(data, model, _MODEL_BUFFERS))[index], _BUFFER_DATA)
        return b"" if content is None else _vector(data, content)
    return None


def _follow(data: Data, at: int) -> int:
    """The place that the offset at ``at`` points to."""
    return int(at + struct.unpack_from("<I", data, at)[0])


def _field(data: Data, table: int, number: int) -> int | None:
    """The place of a table's field; None where the table lacks the field."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        return None
    offset = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    return int(table + offset) if offset else None


def _vector(data: Data, at: int) -> bytes:
    """The bytes of the vector or text that a field points to."""
    start = _follow(data, at)
    size = struct.unpack_from("<I", data, start)[0]
    return bytes(data[start + 4 : start + 4 + size])


def _tables(data: Data, at: int | None) -> list[int]:
    """The places of the tables in the vector that a field points to."""
    if at is None:
        return []
    start = _follow(data, at)
    return [_follow(data, start + 4 + 4 * i) for i in range(struct.unpack_from("<I", data, start)[0])]
