"""The compression plan: the structure, ranks, order and forms of each layer, as a TOML text to read and to edit by
hand.

    version = 1
    model = "sixconv"

    [layers."features.conv1_2"]
    method = "kronecker"
    shape = "f 64x1, c 1x64, h 1x3, w 3x1"
    rank = 24                               # a list where the structure has several
    order = [1, 0]                          # optional: the cheapest order
    forms = { onnx = ["grouped", "grouped"] }   # optional: the defaults of each runtime
    measured = { onnx = "0.41 ms, 3.20 times as fast as dense [3.16, 3.25], ..." }      # optional: written by tuning
    reason = "class S1: two ordinary convolutions"      # for the reader

    [layers."features.conv2_1"]
    method = "dense"
    channels = 96                           # optional: how many output channels stay, of 128
    criterion = "qsfm-ssim"                 # by which the others are chosen
    reason = "96 of 128 channels stay"

    [layers."classifier"]
    method = "dense"
    reason = "no structure has fewer MACs"

Channels are removed first; the structures are those of the pruned layers. A layer that the plan does not
name stays dense.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from edgekron.algebra.lowering import FORMS, WHOLE
from edgekron.errors import UserError
from edgekron.graph.factorized import TARGETS

VERSION = 1
_KEYS = frozenset(("method", "shape", "rank", "order", "forms", "reason", "measured", "channels", "criterion"))


@dataclass(frozen=True)
class LayerPlan:
    """One layer's line: a structure at its ranks, or "dense" with the reason.

    ``channels`` is how many of its output channels stay, chosen by ``criterion``; 0 for all of them.
    """

    method: str = "dense"
    shape: str = ""
    ranks: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)
    channels: int = 0
    criterion: str = ""


@dataclass(frozen=True)
class CompressionPlan:
    """The lines of all layers, in the order of the network, and the model they were made for."""

    model: str
    layers: Mapping[str, LayerPlan]

    def to_toml(self) -> str:
        """The plan as a TOML document."""
        document = tomlkit.document()
        document.add("version", tomlkit.item(VERSION))
        document.add("model", tomlkit.item(self.model))
        tables = tomlkit.table(is_super_table=True)
        for name, layer in self.layers.items():
            table = tomlkit.table()
            table.add("method", layer.method)
            if layer.channels:
                table.add("channels", layer.channels)
                table.add("criterion", layer.criterion)
            if layer.method != "dense":
                table.add("shape", layer.shape)
                table.add("rank", plain(layer.ranks))
                table.add("order", list(layer.order))
                table.add("forms", _inline({target: list(chosen) for target, chosen in layer.forms.items()}))
            if layer.measured:
                table.add("measured", _inline(layer.measured))
            if layer.reason:
                table.add("reason", layer.reason)
            tables.add(name, table)
        document.add("layers", tables)
        return tomlkit.dumps(document)

    @classmethod
    def from_toml(cls, text: str, name: str = "the plan") -> CompressionPlan:
        """Reads a plan; ``name`` is its file, for messages. Raises ``UserError``."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{name} is not valid TOML ({error}); correct it.") from None
        if document.get("version") != VERSION:
            raise UserError(f"{name} has version {document.get('version')!r}; this EdgeKron reads version {VERSION}.")
        layers = document.get("layers", {})
        if not isinstance(layers, dict):
            raise UserError(f'{name}: layers must be tables such as [layers."conv1"].')
        lines = {layer: _layer(table, f"{name}, layer {layer}") for layer, table in layers.items()}
        return cls(str(document.get("model", "")), lines)

    @classmethod
    def read(cls, path: Path) -> CompressionPlan:
        """Reads a plan from a file; raises ``UserError``."""
        try:
            return cls.from_toml(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the plan {path} cannot be read ({error}).") from None

    def check_layers(self, known: Iterable[str]) -> None:
        """Raises ``UserError`` for a layer that the network lacks, with the nearest name of a layer of the network."""
        names = list(known)
        missing = [layer for layer in self.layers if layer not in names]
        if len(missing) > 1:
            raise UserError(
                f"the plan was made for another model ({self.model}): it names layers {', '.join(missing)}, "
                "which the network does not have"
            )
        for layer in missing:
            near = difflib.get_close_matches(layer, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"the plan names layer {layer!r}, which the network does not have{hint}")


def plain(ranks: Sequence[int]) -> int | list[int]:
    """Ranks as plans and reports write them: a number where there is one."""
    return ranks[0] if len(ranks) == 1 else list(ranks)


def _inline(entries: Mapping[str, Any]) -> tomlkit.items.InlineTable:
    table = tomlkit.inline_table()
    for key, value in entries.items():
        table.add(key, value)
    return table


def _layer(table: Any, where: str) -> LayerPlan:
    if not isinstance(table, dict):
        raise UserError(f'{where}: a table is needed, such as method = "dense".')
    unknown = set(table) - _KEYS
    if unknown:
        known = ", ".join(sorted(_KEYS))
        raise UserError(f"{where} has unknown keys {sorted(unknown)}; it may have {known}.")
    forms = table.get("forms", {})
    order = table.get("order", [])
    rank = table.get("rank", [])
    ranks = rank if isinstance(rank, list) else [rank]
    if not isinstance(forms, dict) or not set(forms) <= set(TARGETS):
        raise UserError(f"{where}: forms must be a table of {' and '.join(TARGETS)}.")
    for chosen in forms.values():
        if not isinstance(chosen, list) or not all(form in (*FORMS, *WHOLE) for form in chosen):
            raise UserError(f"{where}: forms must be lists of {', '.join(FORMS)}, or one of {WHOLE} alone.")
    measured = table.get("measured", {})
    if not isinstance(measured, dict) or not set(measured) <= set(TARGETS):
        raise UserError(f"{where}: measured must be a table of {' and '.join(TARGETS)}.")
    if not isinstance(order, list) or not all(type(i) is int for i in (*ranks, *order)):
        raise UserError(f"{where}: rank must be a number or a list of numbers, and order a list of numbers.")
    channels = table.get("channels", 0)
    if type(channels) is not int or channels < 0 or bool(channels) != bool(table.get("criterion")):
        raise UserError(f"{where}: channels must be a number above 0, with the criterion that chooses them.")
    return LayerPlan(
        method=str(table.get("method", "dense")),
        shape=str(table.get("shape", "")),
        ranks=tuple(ranks),
        order=tuple(order),
        forms={target: tuple(chosen) for target, chosen in forms.items()},
        reason=str(table.get("reason", "")),
        measured={target: str(text) for target, text in measured.items()},
        channels=channels,
        criterion=str(table.get("criterion", "")),
    )
