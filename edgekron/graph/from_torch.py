"""Imports torch modules and exported programs by ``torch.onnx.export``; weights keep their names of the state dict."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from edgekron.errors import UserError

from .adaptive_pooling import TRANSLATIONS
from .nodes import OPSET
from .parametrizations import is_parametrized, plain_copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# Two, because torch.export treats a batch of one as a constant.
_TRACED_BATCH = 2


def import_module(module: nn.Module, input_shape: tuple[int, ...]) -> ir.Model:
    """The module in evaluation mode as ONNX, with a dynamic batch. Its training flags are as before afterwards.

    Parametrizations are removed, on a copy, so that each weight has the name of its layer. Raises ``UserError`` when
    one cannot be removed, or the module is not float32, does not take ``input_shape`` or cannot be traced.
    """
    name = type(module).__name__
    if is_parametrized(module):
        module = plain_copy(module)
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
        model = _export(_traced(module, name, example), name)
        _own_weights(model)
    return model


def _own_weights(model: ir.Model) -> None:
    """Copies the weights, which would change with the module's when the module is trained or moved afterwards."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.const_value = ir.tensor(np.array(value.const_value.numpy()), name=value.name)


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


def _traced(module: nn.Module, name: str, example: torch.Tensor) -> ExportedProgram:
    """The module as a program.

    ``torch.onnx.export`` would trace the module too, but prints it first, and some modules cannot be printed.
    """
    with _quiet():
        try:
            return torch.export.export(module, (example,), dynamic_shapes=({0: Dim("N")},), strict=False)
        except Exception as error:
            raise UserError(f"{name} cannot be traced: {_line(_root(error))}") from error


def _export(program: ExportedProgram, name: str) -> ir.Model:
    with _quiet():
        try:
            # Without its optimiser, which would fold and rename weights before we see them.
            exported = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=["input"],
                custom_translation_table=TRANSLATIONS,
            )
        except Exception as error:
            raise UserError(f"{name} cannot be exported to ONNX: {_line(_root(error))}") from error
    if exported is None:
        raise UserError(f"{name} cannot be exported to ONNX")
    return exported.model


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


def _root(error: BaseException) -> BaseException:
    """The first of a chain of errors: what torch's exporter wraps in advice about itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    # A KeyError's whole text is the key.
    return kind if not lines else lines[0] if " " in lines[0] else f"{kind}: {lines[0]}"
