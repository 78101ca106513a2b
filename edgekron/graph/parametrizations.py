"""Removes the parametrizations of a module, so that every layer has its weights as plain parameters again.

Weight, spectral and orthogonal normalisation, any other use of ``torch.nn.utils.parametrize``, the older hooks of
``torch.nn.utils.weight_norm`` and ``spectral_norm``, and pruning masks all compute a weight from other tensors at
every use. In evaluation mode the computed weight is constant, and can be stored in the place of these tensors.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgekron.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_parametrized(module: nn.Module) -> bool:
    """Whether ``module`` or a part of it computes a weight by a parametrization, a hook or a mask."""
    return any(parametrize.is_parametrized(part) or any(_hooks(part)) for part in module.modules())


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose weights are plain parameters, with the outputs of its evaluation mode.

    ``module`` stays as it is. Raises ``UserError`` with the layer's name where a parametrization has no constant
    value.
    """
    # The hooks keep the computed weight, part of a graph of gradients, as an attribute, which refuses to be copied.
    computed = [v for part in module.modules() for v in vars(part).values() if isinstance(v, Tensor) and not v.is_leaf]
    result = copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in computed})
    for name, part in result.named_modules():
        for hook, tensor_name in list(_hooks(part)):
            _remove_hook(part, hook, tensor_name)
        if parametrize.is_parametrized(part):
            _remove_parametrizations(part, name or type(module).__name__)
    return result


def _hooks(part: nn.Module) -> Iterator[tuple[object, str]]:
    """The hooks that compute a weight, each with the weight's name."""
    for hook in part._forward_pre_hooks.values():  # noqa: SLF001  there is no public way to list them
        if isinstance(hook, WeightNorm | SpectralNorm):
            yield hook, hook.name
        elif isinstance(hook, prune.BasePruningMethod):
            yield hook, hook._tensor_name  # noqa: SLF001


def _remove_hook(part: nn.Module, hook: object, tensor_name: str) -> None:
    if isinstance(hook, WeightNorm):
        remove_weight_norm(part, tensor_name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(part, tensor_name)
    else:
        _untie(part, f"{tensor_name}_orig")
        prune.remove(part, tensor_name)


def _remove_parametrizations(part: nn.Module, layer: str) -> None:
    # The class was made for the original module, a property for each tensor; removing takes them from the class.
    made = type(part)
    part.__class__ = type(made.__name__, made.__bases__, {k: v for k, v in vars(made).items() if k != "__weakref__"})
    for tensor_name, chain in list(_chains(part)):
        chain.eval()
        kinds = ", ".join(type(step).__name__ for step in chain)
        what = f"layer {layer}: the parametrization {kinds} of its {tensor_name}"
        try:
            with torch.no_grad():
                once, again = getattr(part, tensor_name), getattr(part, tensor_name)
                constant = torch.allclose(once, again, rtol=0.0, atol=0.0, equal_nan=True)
            if chain.is_tensor:
                _untie(chain, "original")
            parametrize.remove_parametrizations(part, tensor_name)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise UserError(f"{what} cannot be removed ({error}); remove it before compressing") from error
        if not constant:
            raise UserError(f"{what} gives another value each time; remove it before compressing")


def _chains(part: nn.Module) -> Iterator[tuple[str, parametrize.ParametrizationList]]:
    """The parametrizations of a module, each with the name of its tensor."""
    for name, chain in part.get_submodule("parametrizations").named_children():
        if isinstance(chain, parametrize.ParametrizationList):
            yield name, chain


def _untie(part: nn.Module, name: str) -> None:
    """Gives ``part`` its own copy of a parameter: removal overwrites the values, which another layer may share."""
    tensor = getattr(part, name)
    if isinstance(tensor, nn.Parameter):
        setattr(part, name, nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad))
