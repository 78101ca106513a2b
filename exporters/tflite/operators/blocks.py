"""DepthToSpace and SpaceToDepth: blocks of pixels as channels."""

from __future__ import annotations

from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("DepthToSpace")
def depth_to_space(call: Call) -> None:
    """Channel (i b + j) C + c (mode DCR, TFLite's) or c b b + i b + j (mode CRD) becomes pixel (i, j) of a block."""
    x, block = call.value(0, NHWC).tensor, int(call.attribute("blocksize"))
    n, h, w, c = x.shape
    if call.attribute("mode", "DCR") == "CRD":
        x = call.program.reshape(x, (n, h, w, c // block**2, block**2), f"{call.name}/blocks")
        x = call.program.transpose(x, (0, 1, 2, 4, 3), f"{call.name}/ordered")
        x = call.program.reshape(x, (n, h, w, c), f"{call.name}/channels")
    shape = (n, h * block, w * block, c // block**2)
    call.finish(call.program.emit("DEPTH_TO_SPACE", [x], shape, call.name, blockSize=block), NHWC)


@translates("SpaceToDepth")
def space_to_depth(call: Call) -> None:
    """Pixel (i, j) of a block becomes channel (i b + j) C + c (mode DCR, TFLite's) or c b b + i b + j (mode CRD)."""
    x, block = call.value(0, NHWC).tensor, int(call.attribute("blocksize"))
    n, h, w, c = x.shape
    shape = (n, h // block, w // block, c * block**2)
    y = call.program.emit("SPACE_TO_DEPTH", [x], shape, call.name, blockSize=block)
    if call.attribute("mode", "DCR") == "CRD":
        y = call.program.reshape(y, (*shape[:3], block**2, c), f"{call.name}/blocks")
        y = call.program.transpose(y, (0, 1, 2, 4, 3), f"{call.name}/ordered")
        y = call.program.reshape(y, shape, f"{call.name}/channels")
    call.finish(y, NHWC)
