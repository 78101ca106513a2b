"""The budget file: the limits of each model, in TOML.

    format = 1
    device = "local"                      # where to measure, unless --on says otherwise
    baseline = "baselines.json"           # for the limits *_vs_baseline; made by --write-baseline

    [measure]
    threads = 1
    time = "60 s"                         # the longest that one attempt may measure one model
    precision = "1 %"                     # narrow enough: stop measuring earlier
    attempts = 2                          # an inconclusive measurement is repeated

    [models.sixconv]
    file = "sixconv.onnx"                 # paths are relative to the budget file
    reference = "sixconv-dense.onnx"      # for the limits *_vs_reference
    data = "fashion-mnist:test"           # for top1

    [models.sixconv.limits]               # on every device
    file_size = "600 kB"
    top1 = "93 %"
    operators = { Transpose = 0 }

    [models.sixconv.devices.local]        # on one device; takes the place of a general limit of the same name
    latency_median = "1 ms"
    latency_vs_reference = 0.6

Every key is checked; an unknown one is refused with the nearest that exists.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.devices.file import check_name, check_place, said_in_full

from .limits import KINDS, Limit
from .units import parse

FORMAT = 1

#: A table of TOML, whose values are not checked yet.
Table = Mapping[str, object]


@dataclass(frozen=True)
class CheckEffort:
    """How hard to try. ``seconds`` is for one attempt at one model; ``precision`` is half the interval, relative."""

    threads: int = 1
    seconds: float = 60.0
    precision: float = 0.01
    attempts: int = 2


@dataclass(frozen=True)
class ModelBudget:
    """One model: its file, reference and data set, and its limits, general ones and by device."""

    name: str
    file: Path
    reference: Path | None
    data: str | None
    limits: tuple[Limit, ...]
    by_device: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)

    def limits_on(self, device: str) -> tuple[Limit, ...]:
        """The limits that hold on a device; its own take the place of general ones of the same key."""
        merged = {limit.key: limit for limit in self.limits}
        merged |= {limit.key: limit for limit in self.by_device.get(device, ())}
        return tuple(merged.values())


@dataclass(frozen=True)
class Budget:
    """A whole budget file."""

    path: Path
    device: str
    effort: CheckEffort
    baseline: Path | None
    models: tuple[ModelBudget, ...]

    def select(self, names: Collection[str]) -> tuple[ModelBudget, ...]:
        """The models of these names, all for none; ``RuntimeFailure`` for a name that is not in the file."""
        known = {model.name: model for model in self.models}
        for name in names:
            if name not in known:
                raise RuntimeFailure(f"{self.path} has no model {name!r}; {_nearest(name, known)}")
        return tuple(model for model in self.models if not names or model.name in names)


def read_budget(path: str | Path) -> Budget:
    """Reads and checks a budget file; ``RuntimeFailure`` names the key that is wrong and the remedy."""
    file = Path(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuntimeFailure(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuntimeFailure(f"{path} is no TOML file ({error}); mend it there.") from None
    reader = _Reader(file)
    reader.keys(data, "", ("format", "device", "baseline", "measure", "models"))
    if data.get("format") != FORMAT:
        raise RuntimeFailure(f"{path}: format is {data.get('format')!r}; this version reads `format = {FORMAT}`.")
    models = reader.table(data, "", "models")
    if not models:
        raise RuntimeFailure(f"{path} names no model; add a table [models.NAME] with its file and limits.")
    baseline = reader.text(data, "", "baseline")
    return Budget(
        path=file,
        device=reader.text(data, "", "device") or "local",
        effort=reader.effort(reader.table(data, "", "measure")),
        baseline=file.parent / baseline if baseline else None,
        models=tuple(reader.model(name, reader.table(models, "models", name), bool(baseline)) for name in models),
    )


@dataclass(frozen=True)
class _Reader:
    """Takes tables apart; ``place`` is where they stand in the file, such as "models.sixconv"."""

    path: Path

    def keys(self, table: Table, place: str, known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                where = f" in [{place}]" if place else ""
                raise RuntimeFailure(f"{self.path}: unknown key {key!r}{where}; {_nearest(key, known)}")

    def table(self, table: Table, place: str, key: str) -> Table:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise RuntimeFailure(f"{self.path}: {_join(place, key)} must be a table, not {value!r}.")
        return value

    def text(self, table: Table, place: str, key: str) -> str | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise RuntimeFailure(f"{self.path}: {_join(place, key)} must be words in quotes, not {value!r}.")
        return value

    def number(self, value: object, quantity: str, place: str, key: str) -> float:
        return parse(value, quantity, f"{self.path}: {_join(place, key)}")

    def whole(self, table: Table, key: str, default: int) -> int:
        value = table.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RuntimeFailure(f"{self.path}: measure.{key} must be a whole number, not {value!r}.")
        return value

    def effort(self, table: Table) -> CheckEffort:
        self.keys(table, "measure", ("threads", "time", "precision", "attempts"))
        defaults = CheckEffort()
        effort = CheckEffort(
            threads=self.whole(table, "threads", defaults.threads),
            seconds=self.number(table.get("time", f"{defaults.seconds} s"), "seconds", "measure", "time"),
            precision=self.number(table.get("precision", "1 %"), "fraction", "measure", "precision"),
            attempts=self.whole(table, "attempts", defaults.attempts),
        )
        if effort.threads < 1 or effort.attempts < 1 or not effort.seconds > 0 or not effort.precision > 0:
            raise RuntimeFailure(f"{self.path}: threads, time, precision and attempts in [measure] must be above 0.")
        return effort

    def model(self, name: str, table: Table, baseline: bool) -> ModelBudget:
        place = f"models.{name}"
        self.keys(table, place, ("file", "reference", "data", "limits", "devices"))
        file, reference, data = (self.text(table, place, key) for key in ("file", "reference", "data"))
        if file is None:
            raise RuntimeFailure(f'{self.path}: [{place}] names no file; add `file = "{name}.onnx"`.')
        devices = self.table(table, place, "devices")
        for device in devices:
            self.device(device, f"{place}.devices")
        model = ModelBudget(
            name=name,
            file=self.path.parent / file,
            reference=self.path.parent / reference if reference else None,
            data=data,
            limits=self.limits(self.table(table, place, "limits"), f"{place}.limits"),
            by_device={
                device: self.limits(self.table(devices, f"{place}.devices", device), f"{place}.devices.{device}")
                for device in devices
            },
        )
        self.consistent(model, place, baseline)
        return model

    def device(self, word: str, place: str) -> None:
        """Refuses a word that can be no device: its limits would never be judged."""
        if said_in_full(word):
            check_place(word, f"{self.path}: [{place}]")
        else:
            check_name(word)

    def limits(self, table: Table, place: str) -> tuple[Limit, ...]:
        self.keys(table, place, KINDS)
        limits = []
        for key, value in table.items():
            kind = KINDS[key]
            if kind.table:
                counts = self.table(table, place, key)
                limits += [
                    Limit(kind, self.number(count, kind.quantity, f"{place}.{key}", name), name)
                    for name, count in counts.items()
                ]
            else:
                limits.append(Limit(kind, self.number(value, kind.quantity, place, key)))
        return tuple(limits)

    def consistent(self, model: ModelBudget, place: str, baseline: bool) -> None:
        """Refuses limits that lack the reference, data set or baseline that they are judged by."""
        every = {limit.kind.key for limits in (model.limits, *model.by_device.values()) for limit in limits}
        if not every:
            raise RuntimeFailure(f"{self.path}: [{place}] has no limit; add one to [{place}.limits].")
        needs = {
            "reference": (model.reference, [key for key in every if key.endswith("_vs_reference")], f"[{place}]"),
            "data": (model.data, [key for key in every if key == "top1"], f"[{place}]"),
            "baseline": (baseline or None, [key for key in every if key.endswith("_vs_baseline")], "the top level"),
        }
        for key, (given, limits, where) in needs.items():
            if limits and given is None:
                raise RuntimeFailure(f"{self.path}: {limits[0]} in [{place}] needs {key!r}; add it to {where}.")
        if model.file.suffix.lower() != ".tflite":
            for key in sorted(every & {"arena", "arena_micro", "not_delegated"}):
                raise RuntimeFailure(f"{self.path}: {key} in [{place}] is for TFLite files, and {model.file} is none.")


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
