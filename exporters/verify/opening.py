"""Opens the versions of a network that the arguments of a verification stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.graph.layers import layer_names
from edgekron.modules.factorize import factorize_module

from .folded import aligned
from .links import Named
from .names import Names, names_of
from .torch_version import TorchVersion
from .versions import open_version


class Loaded(Protocol):
    """A network loaded from an argument: its name, its hub, and the torch module that the hub was made of, if any."""

    @property
    def name(self) -> str: ...
    @property
    def hub(self) -> Hub: ...
    @property
    def module(self) -> nn.Module | None: ...


@dataclass(frozen=True)
class Opening:
    """The versions in their order, the names of their values, and ``notes`` for the reader."""

    versions: Sequence[Named]
    names: Names
    notes: Sequence[str]


def open_versions(texts: Sequence[str], load: Callable[[str], Loaded]) -> Opening:
    """Opens the arguments ``texts``: .onnx and .tflite files as they are, everything else by ``load``.

    Of two arguments each is one version, its file or its hub. Of more, a module stands for itself and its hub, a
    folder for the module before it with the folder's factors, where there is one, and for its hub; files stand for
    themselves. A module that a folder follows goes on as the factorized module, without its own hub, unless its
    factorized layers are no modules; an .onnx file as reference that a folder follows goes on as its hub. Raises
    ``UserError``.
    """
    found = _Found(load)
    for index, text in enumerate(texts):
        next_is_folder = len(texts) > 2 and index + 1 < len(texts) and Path(texts[index + 1]).is_dir()
        if Path(text).suffix in (".onnx", ".tflite"):
            found.versions.append(Named(text, open_version(text)))
            if index > 0 or not next_is_folder or Path(text).suffix == ".tflite":
                continue
        if len(texts) == 2:
            found.add_hub(text, load(text).hub)
        elif Path(text).is_dir():
            found.add_folder(text)
        else:
            found.add_model(text, alone=not next_is_folder)
    versions = aligned(found.versions, found.hubs)
    return Opening(_titled(versions), names_of(versions, found.hubs), found.notes)


class _Found:
    """The versions opened so far, the hubs among them, notes for the reader, and the last module."""

    def __init__(self, load: Callable[[str], Loaded]) -> None:
        self._load = load
        self._dense: tuple[str, Hub, nn.Module] | None = None
        self.versions: list[Named] = []
        self.hubs: list[Hub] = []
        self.notes: list[str] = []

    def add_hub(self, text: str, hub: Hub) -> None:
        """The hub as a version."""
        self.hubs.append(hub)
        self.versions.append(Named(f"{Path(text)} (hub)", open_version(hub)))

    def add_model(self, text: str, *, alone: bool) -> None:
        """A module, and its hub if it stands ``alone``; the hub where there is no module."""
        source = self._load(text)
        if source.module is not None:
            self._dense = text, source.hub, source.module
            shown = TorchVersion(source.module, source.hub)
            self.versions.append(Named(f"{text} (torch)", shown))
        if source.module is None or alone:
            self.add_hub(text, source.hub)
        else:
            self.hubs.append(source.hub)

    def add_folder(self, text: str) -> None:
        """The last module with the folder's factors, if there is one, and the folder's hub.

        Raises ``UserError`` when the folder is of another network than the hubs before it.
        """
        hub = self._load(text).hub
        if self.hubs and _layers(hub) != _layers(self.hubs[0]):
            raise UserError(f"{text} has other layers than the reference; name the model that was compressed.")
        if self._dense is not None:
            self._add_factorized(text, hub, *self._dense)
        self.add_hub(text, hub)

    def _add_factorized(self, text: str, hub: Hub, name: str, dense: Hub, module: nn.Module) -> None:
        """``module`` with the factors of the folder; its hub ``dense`` where a factorized layer is no module."""
        try:
            small = factorize_module(module, hub)
        except UserError as error:
            what = Path(text).name
            self.notes.append(f"there is no torch version of {what}, so that its hub was compared: {error}")
            self.versions.append(Named(f"{name} (hub)", open_version(dense)))
        else:
            self.versions.append(Named(f"{Path(text)} (torch)", TorchVersion(small, hub)))


def _layers(hub: Hub) -> list[str]:
    return list(layer_names(hub.model.graph).values())


def _titled(versions: Sequence[Named]) -> list[Named]:
    """The same with short titles: the last part of a path, unless two versions have the same."""
    short = [entry.title.rpartition("/")[2] for entry in versions]
    return [
        Named(name if short.count(name) == 1 else entry.title, entry.version)
        for name, entry in zip(short, versions, strict=True)
    ]
