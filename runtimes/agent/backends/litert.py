"""TFLite files in LiteRT (``ai_edge_litert``), or in its older name ``tflite_runtime``.

Images are NHWC unless the file states other axes (``stated_axes``). Most files are written for a fixed batch. The
interpreter would accept another one, but a RESHAPE with constant sizes inside the file would then be wrong; so only a
file that declares its batch free (-1 in the shape signature) is run with other batches.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from edgekron.runtimes.agent.errors import RuntimeFailure

from .session import TensorInfo, only_input
from .stated_axes import stated_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from edgekron.runtimes.agent.messages import RuntimeFacts

#: (module, distribution, name in reports), the first that can be imported is used.
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert", "litert"),
    ("tflite_runtime.interpreter", "tflite-runtime", "tflite-runtime"),
)

#: The interpreter's name of a node that stands for what a delegate took.
_DELEGATE = "DELEGATE"


def import_runtime() -> ModuleType:
    """The module with ``Interpreter``; ``RuntimeFailure`` where none is installed."""
    reasons = []
    for name, _, _ in _RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise RuntimeFailure(
        f"LiteRT cannot be imported ({'; '.join(reasons)}); run `pip install ai-edge-litert`, or tflite-runtime with "
        "numpy<2, on the machine that measures."
    )


def load(path: str | Path, threads: int = 1, *, delegate: bool = True) -> LitertSession:
    """Opens a TFLite file for inference with this many threads; without its ``delegate`` on the plain kernels."""
    return LitertSession(path, threads, delegate)


class LitertSession:
    """One ``Interpreter``, with its default XNNPACK delegate or without."""

    def __init__(self, path: str | Path, threads: int, delegate: bool = True) -> None:
        self.file = str(path)
        _check_header(Path(path))
        self._module = import_runtime()
        options: dict[str, object] = {"model_path": self.file, "num_threads": threads}
        try:
            if not delegate:
                resolvers = self._module.OpResolverType
                options["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            self._interpreter = self._module.Interpreter(**options)
            self._interpreter.allocate_tensors()
        except (AttributeError, TypeError) as error:
            name, version = _installed(self._module)
            raise RuntimeFailure(
                f"{name} {version} is too old, or does not work with numpy {np.__version__} ({error}); on the machine "
                "that measures, run `pip install --upgrade ai-edge-litert`, or `pip install 'numpy<2'`."
            ) from None
        except (ValueError, RuntimeError, SystemError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeFailure(f"{path} cannot be opened by LiteRT ({reason}); export it again.") from None
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        stated = stated_axes(Path(path))
        self.input = only_input(path, _tensors(inputs, stated.get("inputs", [])))
        self.outputs = _tensors(outputs, stated.get("outputs", []))
        self._input_index = inputs[0]["index"]
        self._output_indices = [detail["index"] for detail in outputs]
        self._batch = int(inputs[0]["shape"][0]) if len(inputs[0]["shape"]) else 1
        self._threads = threads

    def run(self, array: np.ndarray) -> list[np.ndarray]:
        """See ``Session.run``: the copies in and out are part of the inference, as they are of an application."""
        self._interpreter.set_tensor(self._input_index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def resize(self, batch: int) -> bool:
        """True where the file declares its batch free, or is written for this one."""
        if batch == self._batch:
            return True
        if self.input.shape[0] is not None:
            return False
        self._interpreter.resize_tensor_input(self._input_index, [batch, *self.input.shape[1:]])
        self._interpreter.allocate_tensors()
        self._batch = batch
        return True

    def describe(self) -> RuntimeFacts:
        """See ``Session.describe``."""
        title, version = _installed(self._module)
        described: RuntimeFacts = {"runtime": title, "version": version, "threads": self._threads}
        try:
            operators = self._interpreter._get_ops_details()  # noqa: SLF001
        except AttributeError:  # not a public method; some versions may lack it
            return {**described, "delegate": "unknown"}
        partitions = sum(operator["op_name"] == _DELEGATE for operator in operators)
        return {
            **described,
            "delegate": "XNNPACK" if partitions else "none",
            "partitions": partitions,
            "not_delegated": _not_delegated(operators),
        }

    def addresses(self) -> Iterator[tuple[int, int]]:
        """(address, bytes) of every tensor that has memory, constants included."""
        for detail in self._interpreter.get_tensor_details():
            try:
                array = self._interpreter.tensor(detail["index"])()
            except ValueError:  # inside a delegate, or scratch that exists only while running
                continue
            yield array.__array_interface__["data"][0], array.nbytes

    def close(self) -> None:
        """See ``Session.close``."""
        del self._interpreter


class _Operator(TypedDict):
    """An operator, or a delegate's node, as the interpreter describes it: the tensors are numbers."""

    index: int
    op_name: str
    inputs: Sequence[int]
    outputs: Sequence[int]


def _not_delegated(operators: Sequence[_Operator]) -> list[str]:
    """The names of operators in no partition.

    The interpreter keeps the operators that a delegate took beside the node that stands for them. They are found by
    walking from that node's outputs back to its inputs.
    """
    maker = {int(y): node for node in operators if node["op_name"] != _DELEGATE for y in node["outputs"]}
    taken = set()
    for piece in operators:
        if piece["op_name"] != _DELEGATE:
            continue
        border = {int(x) for x in piece["inputs"]}
        waiting = [int(y) for y in piece["outputs"]]
        while waiting:
            tensor = waiting.pop()
            node = maker.get(tensor)
            if node is not None and tensor not in border and node["index"] not in taken:
                taken.add(node["index"])
                waiting += [int(x) for x in node["inputs"]]
    return [node["op_name"] for node in operators if node["op_name"] != _DELEGATE and node["index"] not in taken]


def _installed(module: ModuleType) -> tuple[str, str]:
    """(name in reports, version) of the runtime of a module."""
    distribution, title = next((d, t) for name, d, t in _RUNTIMES if name == module.__name__)
    return title, metadata.version(distribution)


def _check_header(path: Path) -> None:
    """Refuses a file that is no TFLite file before the runtime sees it: older interpreters do not verify."""
    try:
        with path.open("rb") as file:
            header = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise RuntimeFailure(f"{path} cannot be read ({error.strerror}); check the path.") from None
    root = int.from_bytes(header[:4], "little")
    if header[4:8] != b"TFL3" or not 8 <= root <= size - 4:
        raise RuntimeFailure(f"{path} is not a TFLite file, or is truncated ({size} bytes); export it again.")


class _OldDetail(TypedDict):
    name: str
    shape: np.ndarray
    dtype: type
    quantization: tuple[float, int]


class _Detail(_OldDetail, total=False):
    """A tensor as the interpreter describes it; the signature, which older ones lack, has -1 for a free size."""

    shape_signature: np.ndarray


def _tensors(details: Sequence[_Detail], stated: Sequence[list[str] | None]) -> list[TensorInfo]:
    """Inputs or outputs with the axes that the file states, in the same order."""
    given = [*stated, *[None] * (len(details) - len(stated))]
    return [_tensor(detail, axes) for detail, axes in zip(details, given)]


def _tensor(detail: _Detail, axes: list[str] | None) -> TensorInfo:
    signature = detail.get("shape_signature", detail["shape"])
    shape = tuple(None if size < 0 else int(size) for size in signature)
    dtype = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    quantization = (float(scale), int(zero)) if dtype.kind in "iu" and scale else None
    file, network = axes or (("NHWC", "NCHW") if len(shape) == 4 else ("plain", "plain"))
    return TensorInfo(detail["name"], shape, dtype.name, file, quantization, network)
