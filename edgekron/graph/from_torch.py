"""Imports torch modules and exported programs by ``torch.onnx.export``; weights keep their names of the state dict."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from edgekron.errors import UserError

from .nodes import OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

# Two, because torch.export treats a batch of one as a constant.
_TRACED_BATCH = 2


def import_module(module: nn.Module, input_shape: tuple[int, ...]) -> ir.Model:
    """The module in evaluation mode as ONNX, with a dynamic batch. Its training flags are as before afterwards.

    Raises ``UserError`` when the module is not float32, does not take ``input_shape`` or cannot be traced.
    """
    name = type(module).__name__
    first = next(module.parameters(), torch.zeros(0))
    if first.dtype != torch.float32:
        raise UserError(f"{name} has {first.dtype} weights, not float32; call .float() on it first")
    example = torch.zeros(_TRACED_BATCH, *input_shape, device=first.device)
    with _evaluating(module), torch.no_grad():
        try:
            module(example)
        except Exception as error:
            shape = ", ".join(str(size) for size in input_shape)
            raise UserError(f"{name} does not take an input of shape [N, {shape}]: {_line(error)}") from error
        return _export(module, name, args=(example,), dynamic_shapes=({0: Dim("N")},))


def import_program(path: Path) -> ir.Model:
    """A ``.pt2`` file as ONNX. Raises ``UserError`` when it is unreadable or was exported in training mode."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with _quiet():
            program = torch.export.load(path)
    except Exception as error:
        raise UserError(f"{path} is truncated or was not written by torch.export.save: {_line(error)}") from error
    if program.graph_signature.buffers_to_mutate:
        raise UserError(f"{path} was exported in training mode; call model.eval() before torch.export.export")
    return _export(program, str(path))


def _export(model: nn.Module | ExportedProgram, name: str, **options: Any) -> ir.Model:
    with _quiet():
        try:
            # Without its optimiser, which would fold and rename weights before we see them.
            program = torch.onnx.export(
                model,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=["input"],
                **options,
            )
        except Exception as error:
            raise UserError(f"{name} cannot be exported to ONNX: {_line(error)}") from error
    if program is None:
        raise UserError(f"{name} cannot be exported to ONNX")
    return program.model


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's notes about packages that are not installed, and tracebacks that become our sentence."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
