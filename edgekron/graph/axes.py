"""The sizes of inputs and outputs as an ONNX file gave them: the fixed ones, and the names of the open ones.

In the hub the batch is always open and every other size of the input is known. The sizes of the file are kept in the
model's metadata, so that an exported ONNX file has the same batch, and the same open height and width.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    import onnx_ir as ir

KEY = "edgekron.axes"

#: A number, the name of an open size, or None for an open one without a name.
Size = int | str | None


def remember_axes(model: ir.Model) -> None:
    """Writes the sizes of all inputs and outputs into the model's metadata."""
    sizes = {
        str(value.name): [d if isinstance(d, int) else d.value for d in value.shape]
        for value in (*model.graph.inputs, *model.graph.outputs)
        if value.shape is not None
    }
    model.metadata_props[KEY] = json.dumps(sizes)


def remembered_axes(model: ir.Model) -> dict[str, list[Size]]:
    """The sizes by input and output; nothing for a model that was no ONNX file. Raises ``UserError`` when damaged."""
    try:
        sizes = json.loads(model.metadata_props.get(KEY, "{}"))
        return {str(name): [d if d is None or isinstance(d, str) else int(d) for d in of] for name, of in sizes.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the hub's metadata {KEY} is damaged ({error}); compress the network again") from None


def open_sizes(model: ir.Model) -> list[int]:
    """The axes of the input, the batch apart, that the file left open."""
    sizes = remembered_axes(model).get(str(model.graph.inputs[0].name), [])
    return [axis for axis, size in enumerate(sizes) if axis and not isinstance(size, int)]
