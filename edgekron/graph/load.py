"""``load``: from a torch module, an exported program or an ONNX file to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

from .from_onnx import import_onnx, is_hub, read_onnx
from .hub import Hub
from .nodes import IR_VERSION
from .opsets import first_line
from .passes import run_import_passes

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn


def load(
    source: nn.Module | str | Path, *, input_shape: tuple[int, ...] | None = None, dequantize: bool = False
) -> Hub:
    """The hub of ``source``: an ``nn.Module``, or the path of a ``.pt2`` or ``.onnx`` file (or one of ``Hub.save``).

    ``input_shape`` is [C, H, W] without the batch: required for a module, and for a file that leaves sizes of its
    input open. ``dequantize`` turns an ONNX file that is quantized into the float network that it stands for. Batch
    normalisation and constants are folded, the batch is dynamic. Raises ``UserError`` for a source that cannot be read
    or imported, and for weights that are not finite.
    """
    if not isinstance(source, str | Path):
        from .from_torch import import_module

        if input_shape is None:
            raise UserError(f"{type(source).__name__} needs the shape of its input, such as (3, 32, 32)")
        return _finish(import_module(source, tuple(input_shape)), type(source).__name__, tuple(input_shape))
    path = Path(source)
    shape = tuple(input_shape) if input_shape is not None else None
    if path.suffix == ".pt2":
        from .from_torch import import_program

        return _finish(import_program(path), str(path), shape)
    if path.suffix == ".onnx":
        proto = read_onnx(path)
        if is_hub(proto):
            return Hub.read(proto, path)
        try:
            return _finish(import_onnx(proto, path, dequantized=dequantize), str(path), shape)
        except UserError:
            raise
        except Exception as error:
            # A file can pass the ONNX checker and still be damaged in ways that other libraries meet as any error.
            line = first_line(error)
            raise UserError(f"{path} cannot be imported ({type(error).__name__}: {line}); export it again") from error
    raise UserError(f"{path} is neither a .onnx nor a .pt2 file; export the model to one of them")


def _finish(model: ir.Model, source: str, input_shape: tuple[int, ...] | None) -> Hub:
    run_import_passes(model, source, input_shape)
    model.ir_version = IR_VERSION
    return Hub(model)
