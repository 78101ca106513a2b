"""Values that one file has behind a folded normalization, and another file behind the layer alone, under one name.

A tool that folds a normalization, or a multiplication and an addition of constants, into the layer before it changes
the layer's result, and often leaves the result its name. With a layer's value c and n = s * c + t,

    as it came:   Conv -> c -> BatchNormalization -> n        folded:   Conv -> c, which is n

So c must be compared with n, and never with the other c. Only graphs say which is which: the values behind a layer are
followed through the operators with constants, and those that the folded graph lacks are the ones that were folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx

from edgekron.graph import Hub

from .links import Named
from .parts import read_inside
from .versions import OnnxVersion

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_AFFINE = ("BatchNormalization", "Mul", "Add", "Sub", "Div")


def aligned(versions: Sequence[Named], hubs: Sequence[Hub]) -> list[Named]:
    """The versions with the same name for the same value: that of the last of ``hubs``, else of the first ONNX file."""
    files = [entry.version for entry in versions if isinstance(entry.version, OnnxVersion)]
    if not files:
        return list(versions)
    model = _Behind(hubs[-1].proto() if hubs else files[0].proto)
    return [_aligned(entry, model) if isinstance(entry.version, OnnxVersion) else entry for entry in versions]


def _aligned(entry: Named, model: _Behind) -> Named:
    version = entry.version
    if not isinstance(version, OnnxVersion) or version.kind != "onnx" or not version.inner:
        return entry
    names = dict(_renamed(_Behind(version.proto), model))
    return Named(entry.title, OnnxVersion(_with_names(version.proto, names), True, entry.title)) if names else entry


def _renamed(own: _Behind, model: _Behind) -> Iterator[tuple[str, str]]:
    """(name in the own graph, name of the same value in ``model``) where a layer has more folded into it in one."""
    for value, behind in own.chains.items():
        other = model.chains.get(value)
        if other is None or len(other) == len(behind):
            continue
        longer, lacking = (behind, model) if len(behind) > len(other) else (other, own)
        folded = longer[: abs(len(behind) - len(other))]
        if lacking.values.isdisjoint(folded) and own.inner.isdisjoint((value, folded[-1])):
            if longer is behind:
                yield folded[-1], value
                yield value, f"{value}, before {folded[-1]}"
            else:
                yield value, folded[-1]


class _Behind:
    """A graph's ``values``, and for each value of a layer in ``chains`` those made of it alone by constants, in order.

    ``inner`` are the values whose names must stay: outputs of the graph, and those that control flow reads.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        made_here = {function.name for function in proto.functions}
        fixed = {tensor.name for tensor in graph.initializer}
        self.values = {name for node in graph.node for name in node.output}
        self.inner = {output.name for output in graph.output}
        reads = Counter(name for node in graph.node for name in node.input)
        steps: dict[str, str] = {}
        for node in graph.node:
            self.inner.update(read_inside(node))
            rest = [name for name in node.input if name and name not in fixed]
            if not rest and node.op_type not in ("If", "Loop", "Scan"):
                fixed.update(node.output)
            elif node.op_type in _AFFINE and len(rest) == 1 and reads[rest[0]] == 1:
                steps[rest[0]] = node.output[0]
        layers = [node.output[0] for node in graph.node if node.op_type in _LAYERS or node.op_type in made_here]
        self.chains = {name: _follow(name, steps) for name in layers}


def _follow(name: str, steps: Mapping[str, str]) -> list[str]:
    found = []
    while name in steps:
        name = steps[name]
        found.append(name)
    return found


def _with_names(proto: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """A copy of the model in which values have other names."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(proto)
    for node in renamed.graph.node:
        for places in (node.input, node.output):
            places[:] = [names.get(name, name) for name in places]
    for info in renamed.graph.value_info:
        info.name = names.get(info.name, info.name)
    return renamed
