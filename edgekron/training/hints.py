"""Layers of two networks aligned by name, and their responses taken by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from edgekron.errors import UserError
from edgekron.modules.layers import FactorizedConv2d, FactorizedConvTranspose2d, FactorizedLinear
from edgekron.modules.node_modules import Normalised, OperatorModule

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, FactorizedConv2d, FactorizedConvTranspose2d)
_ROWS = (nn.Linear, FactorizedLinear)
#: Shapes of the outputs of submodules by name, without the batch; "" is the network's own output.
Shapes = Mapping[str, tuple[int, ...]]


class Taps:
    """Forward hooks: ``taken[name]`` is the output of the submodule ``name`` in the last forward pass."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.taken: dict[str, Tensor] = {}
        self._handles = [module.get_submodule(name).register_forward_hook(self._hook(name)) for name in names]

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                self.taken[name] = output

        return keep

    def remove(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


@torch.no_grad()
def shapes_of(module: nn.Module, images: Tensor) -> Shapes:
    """The shape of each submodule's output for ``images``, in the order in which the submodules run.

    Raises ``UserError`` when the network does not take the images, or gives more than one output.
    """
    training = module.training
    taps = Taps(module, [name for name, _ in module.named_modules() if name])
    try:
        output = module.eval()(images)
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise UserError(
            f"{type(module).__name__} does not take images of shape {list(images.shape[1:])}: {line}; give data of the "
            "shape it was made for."
        ) from error
    finally:
        taps.remove()
        module.train(training)
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise UserError(f"{type(module).__name__} must give one vector of classes for each image to be trained here.")
    shapes = {name: tuple(taken.shape[1:]) for name, taken in taps.taken.items()}
    return shapes | {"": tuple(output.shape[1:])}


def aligned(ours: Shapes, theirs: Shapes, names: Sequence[str]) -> tuple[str, ...]:
    """``names``, if both networks have all of these layers, with equal shapes.

    Raises ``UserError`` with the layers that one of the networks lacks, or whose shapes differ.
    """
    wrong = []
    for name in names:
        if name not in ours or name not in theirs:
            wrong.append(f"{name} ({'the network' if name not in ours else 'the teacher'} has none)")
        elif ours[name] != theirs[name]:
            wrong.append(f"{name} ({list(ours[name])} and {list(theirs[name])})")
    if wrong:
        raise UserError(
            f"these layers of network and teacher cannot be aligned: {', '.join(wrong)}; leave them out of the hints."
        )
    return tuple(names)


def default_hints(student: nn.Module, teacher: nn.Module, ours: Shapes, theirs: Shapes) -> tuple[str, ...]:
    """The last layer of each resolution that both networks have; the layer that gives the output is left out.

    Where the teacher has normalisations, each stands for the convolution before it: in a student whose normalisations
    were folded into factorized layers, identities of the same names give the same values. Raises ``UserError``, with
    the teacher's layers, where no layer can be aligned.
    """
    modules = dict(student.named_modules())
    layers = {name: part for name, part in teacher.named_modules() if name in theirs}
    norms = [name for name, part in layers.items() if isinstance(part, _NormBase)]
    inside = {f"{name}.layer" for name, part in layers.items() if isinstance(part, Normalised)}
    plain = [
        name
        for name, part in layers.items()
        if isinstance(part, (OperatorModule, Normalised, *_ROWS, *(() if norms else _CONVOLUTIONS)))
        and name not in inside
    ]
    wanted = [name for name in theirs if name in {*norms, *plain}]
    common = [name for name in wanted if name in modules and ours.get(name) == theirs[name]]
    last: dict[tuple[int, ...], str] = {}
    for name in common:
        if theirs[name] != theirs[""]:
            last[theirs[name][1:]] = name
    if not last:
        raise UserError(
            f"no layer of the network is aligned with one of the teacher, whose layers are {', '.join(wanted)}; use a "
            "teacher with the same names, or no hints."
        )
    return tuple(last.values())
