"""Runs a hub over calibration images layer by layer, every node once, in bounded memory.

A ``Walk`` stands at a cut through the graph: all nodes in front of the cut have run, and the values that later nodes
still need are on disk, one file each. Moving on runs the nodes between two cuts in ONNX Runtime. A layer that is
replaced before the walk passes runs as replaced, so later layers see the inputs of the network as compressed so far.

Several processes share out the images evenly, and sum or gather their findings about a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.graph.control_flow import reads
from edgekron.memory import give_back
from edgekron.processes import ALONE, Processes

from .moments import sample_patches
from .sampled import AnyMoments, rows_of, sums_of

if TYPE_CHECKING:
    import onnxruntime

    from edgekron.graph import Hub, Layer

#: Images that are in memory at once.
AT_ONCE = 4
#: Patches for each input dimension of a layer.
PATCHES_PER_DIMENSION = 24
#: Patches held out to judge a fit, at most and at least, and their elements between these; those of a wide layer.
MOST_HELD_OUT, LEAST_HELD_OUT, HELD_OUT_SIZE, WIDE_HELD_OUT_SIZE = 2048, 256, 2**20, 2**22
#: How far the moments of a wide layer lean to its kernel: fewer patches than inputs say nothing of most directions.
WIDE_LEAN = 0.03


class HasOutput(Protocol):
    """Something that makes the value named ``output``: a layer, or another node."""

    @property
    def output(self) -> str:
        """The value's name."""
        ...


class Walk:
    """A cut that moves through ``hub``, which the images of ``batches`` (float32 [n, C, H, W] each) have run up to.

    ``AT_ONCE`` images are in memory at a time, however large the batches. All ``processes`` get the same batches, and
    each takes its own images, at least one.
    """

    def __init__(self, hub: Hub, batches: Iterable[np.ndarray], processes: Processes = ALONE) -> None:
        self._hub = hub
        self.processes = processes
        # Which of all images are in each piece.
        self._numbers: list[range] = []
        self._folder = TemporaryDirectory(prefix="edgekron-calibration-")
        self._position = 0
        self._files = {hub.input_name: "input"}
        seen = 0
        with self._saving("input") as (file,):
            for batch in batches:
                every = slice((processes.rank - seen) % processes.count, None, processes.count)
                own, numbers = batch[every], range(seen, seen + len(batch))[every]
                for start in range(0, len(own), AT_ONCE):
                    np.save(file, own[start : start + AT_ONCE])
                    self._numbers.append(numbers[start : start + AT_ONCE])
                seen += len(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _path(self, stem: str) -> Path:
        return Path(self._folder.name) / stem

    @contextmanager
    def _saving(self, *stems: str) -> Iterator[list[IO[bytes]]]:
        """Files of these names to append arrays to. Raises ``UserError`` on a full disk."""
        try:
            with ExitStack() as stack:
                yield [stack.enter_context(self._path(stem).open("wb")) for stem in stems]
        except OSError as error:
            raise UserError(
                f"the activations of the calibration images cannot be kept in {self._folder.name} ({error}); free some "
                "room there, set TMPDIR to another folder, or give fewer images."
            ) from None

    def advance(self, layer: HasOutput) -> None:
        """Moves the cut to just before the node that makes the output of ``layer``; never back."""
        target = _position(self._hub, layer)
        if target <= self._position:
            return
        needed = _live_at(self._hub, target)
        missing = [name for name in needed if name not in self._files]
        if missing:
            inputs = [name for name in _live_at(self._hub, self._position) if name in self._files]
            session = _session(self._hub, inputs, missing)
            stems = {name: f"{target}-{i}" for i, name in enumerate(missing)}
            with self._saving(*stems.values()) as files:
                for pieces in zip(*map(self.values, inputs), strict=True):
                    values = session.run(missing, dict(zip(inputs, pieces, strict=True)))
                    for file, value in zip(files, values, strict=True):
                        np.save(file, value)
            self._files |= stems
        for name in [n for n in self._files if n not in needed]:
            self._path(self._files.pop(name)).unlink()
        self._position = target

    def holds(self, name: str) -> bool:
        """Whether a value is alive at the cut."""
        return name in self._files

    def values(self, name: str) -> Iterator[np.ndarray]:
        """A value that is alive at the cut, ``AT_ONCE`` images at a time."""
        path = self._path(self._files[name])
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                yield np.load(file)

    def images(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """A value that is alive at the cut, image by image: (number among the images of all processes, [1, ...]).

        A value with several rows for each image comes row by row, and the number is that of the row.
        """
        for numbers, piece in zip(self._numbers, self.values(name), strict=True):
            rows = -(-len(piece) // len(numbers))
            for i in range(len(piece)):
                yield numbers[i // rows] * rows + i % rows, piece[i : i + 1]

    def outputs(self, hub: Hub, images: int) -> list[np.ndarray]:
        """All outputs of ``hub``, which equals the walk's own up to the cut, for the first ``images`` images.

        Of several processes each computes its own part.
        """
        known = [name for name in hub.output_names if name in self._files]
        wanted = [name for name in hub.output_names if name not in known]
        inputs = [name for name in _live_at(hub, self._position) if name in self._files]
        session = _session(hub, inputs, wanted) if wanted else None
        parts: dict[str, list[np.ndarray]] = {name: [] for name in hub.output_names}
        for numbers, *pieces in zip(self._numbers, *map(self.values, inputs), strict=True):
            few = sum(number < images for number in numbers)
            # One piece at least, for the shapes of what is cut to nothing.
            if not few and all(parts.values()):
                break
            given = dict(zip(inputs, pieces, strict=True))
            values = session.run(wanted, given) if session else []
            for name, value in (*zip(wanted, values, strict=True), *((name, given[name]) for name in known)):
                parts[name].append(value[: len(value) * few // len(numbers)])
        return [np.concatenate(parts[name]) for name in hub.output_names]


def _position(hub: Hub, layer: HasOutput) -> int:
    """Index of the node that makes the layer's output among the nodes in topological order."""
    return next(i for i, node in enumerate(hub.model.graph) if node.outputs[0].name == layer.output)


def _live_at(hub: Hub, position: int) -> list[str]:
    """Names of the values that are made before the node at ``position`` and used at or after it, or are outputs."""
    made, used = [str(v.name) for v in hub.model.graph.inputs], {str(v.name) for v in hub.model.graph.outputs}
    for index, node in enumerate(hub.model.graph):
        if index < position:
            made += [str(v.name) for v in node.outputs]
        else:
            used |= {str(value.name) for value in reads(node)}
    return [name for name in made if name in used]


def _session(hub: Hub, inputs: Sequence[str], outputs: Sequence[str]) -> onnxruntime.InferenceSession:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = hub.submodel(inputs, outputs).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Sample:
    """A layer's calibration data: moments to fit on, and held-out patches x [m, g, d] with outputs y [m, F]."""

    moments: AnyMoments
    x: Tensor
    y: Tensor

    def error(self, kernel: Tensor, bias: Tensor) -> float:
        """Squared error of the outputs on the held-out patches, relative to the outputs' variance.

        The variance is that of the moments, because a few held-out patches may hardly vary.
        """
        predicted = apply_kernel(self.x, kernel) + bias.float()
        return float((self.y - predicted).square().sum()) / len(self.y) / max(self.moments.yy, 1e-30)


def sample(layer: Layer, kernel: Tensor, outputs: Walk, inputs: Walk, seed: int) -> Sample:
    """Patches of ``layer``'s inputs from the walk ``inputs``, with the outputs of the original layer in ``outputs``.

    ``outputs`` walks the original network, ``inputs`` the compressed one, and both must stand at the layer. All their
    processes get the same sample, but for rounding. Every eighth image is held out; fewer than eight images serve both
    ends. The moments of a wide layer are those of rows (``edgekron.fitting.sampled``), and lean to ``kernel``.
    """
    processes = outputs.processes
    d = math.prod(layer.kernel_shape[1:])
    total = sums_of(layer.groups, d, layer.kernel_shape[0])
    # A process may have none of the images that are held out.
    held = [(torch.empty(0, layer.groups, d), torch.empty(0, layer.kernel_shape[0]))]
    images = int(processes.sum(torch.tensor(sum(len(piece) for piece in outputs.values(layer.input)))))
    per_image = patches_of_each(layer, images)
    wide = rows_of(layer.groups, d, layer.kernel_shape[0]) is not None
    most_held = -(-_held_out(d * layer.groups, wide=wide) // max(1, images // 8))
    bias = torch.zeros(layer.kernel_shape[0]) if layer.bias is None else torch.from_numpy(layer.bias)
    for (index, value), (_, other) in zip(outputs.images(layer.input), inputs.images(layer.input), strict=True):
        # The same generator state for both walks: the same positions of the same images.
        original = patches_of(layer, value, per_image, np.random.default_rng((seed, index)))
        x = original if outputs is inputs else patches_of(layer, other, per_image, np.random.default_rng((seed, index)))
        y = apply_kernel(original, kernel) + bias
        if index % 8 == 7 or images < 8:
            step = -(-len(x) // most_held)
            held.append((x[::step].clone(), y[::step].clone()))
        if index % 8 != 7 or images < 8:
            total.add(x, y, index)
    xs, ys = (processes.gather(torch.cat([pair[i] for pair in held])) for i in (0, 1))
    held.clear()
    moments = total.finish(processes)
    del total
    give_back()
    return Sample(moments.lean(kernel, WIDE_LEAN) if wide else moments, xs, ys)


def patches_of_each(layer: Layer, images: int) -> int:
    """How many patches of each image tell a layer's second moments: as many in all as a wide layer has rows."""
    d = math.prod(layer.kernel_shape[1:])
    rows = rows_of(layer.groups, d, layer.kernel_shape[0])
    return -(-PATCHES_PER_DIMENSION * d // images) if rows is None else max(1, rows // images)


def _held_out(size: int, *, wide: bool) -> int:
    """How many patches of ``size`` elements to hold out."""
    if wide:
        return max(LEAST_HELD_OUT // 4, min(LEAST_HELD_OUT, WIDE_HELD_OUT_SIZE // size))
    return max(LEAST_HELD_OUT, min(MOST_HELD_OUT, HELD_OUT_SIZE // size))


def apply_kernel(x: Tensor, kernel: Tensor) -> Tensor:
    """Outputs [m, F] of patches [m, g, d], without bias."""
    k = kernel.float().reshape(x.shape[1], -1, x.shape[2])
    return torch.einsum("mgd,gfd->mgf", x, k).reshape(len(x), -1)


def patches_of(layer: Layer, value: np.ndarray, per_image: int, rng: np.random.Generator) -> Tensor:
    """``per_image`` patches [m, groups, d] for each image of a layer's input; all rows of a fully connected layer's."""
    if layer.kind == "linear":
        return torch.from_numpy(value.reshape(-1, 1, value.shape[-1]).astype(np.float32))
    return sample_patches(value, layer.kernel_shape[2:], layer.geometry, layer.groups, per_image, rng)
