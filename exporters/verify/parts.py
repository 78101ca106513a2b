"""An ONNX graph cut at given values, whose parts run on inputs that come from another version.

To say how much error *enters* at a layer, the error that reached it must be left out. So the reference is cut at every
value v that the candidate shows, and each part between two cuts runs on the candidate's own values:

    entered(v) = |candidate's v - part(candidate's values before v)| / |part(...)|

An error that came in earlier is in both and cancels; rounding of v itself counts where v is made. Only the reference
takes values into the middle of its graph, as no runtime of phones could do so for the candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx

from .versions import plain_session

_GIVEN = "given:"


class Parts:
    """The graph of ``proto`` cut at ``names``, which are values that its nodes make, and runs of all parts at once.

    A value that a sub-graph of control flow reads is not cut there: the part goes on to the cut before it.
    ``between`` has, for each cut, the values that its part makes, the cut itself last; ``operators`` has the type
    of the node that makes the cut.
    """

    def __init__(self, proto: onnx.ModelProto, names: Collection[str]) -> None:
        self._input = proto.graph.input[0].name
        inner = {name for node in proto.graph.node for name in read_inside(node)}
        made = {name: node for node in proto.graph.node for name in node.output}
        cuts = {name for name in names if name in made}
        self._given = sorted(cuts - inner)
        self.between = {name: _between(name, made, set(self._given)) for name in made if name in cuts}
        self.operators = {name: made[name].op_type for name in self.between}
        cut = onnx.ModelProto()
        cut.CopyFrom(proto)
        for node in cut.graph.node:
            for index, name in enumerate(node.input):
                if name in cuts - inner:
                    node.input[index] = _GIVEN + name
        cut.graph.input.extend(_value(_GIVEN + name) for name in self._given)
        del cut.graph.output[:]
        cut.graph.output.extend(_value(name) for name in self.between)
        self._session = plain_session(cut) if cuts else None
        # A runtime drops inputs that no node reads.
        known = {entry.name for entry in self._session.get_inputs()} if self._session else set()
        self._feeds_image = self._input in known

    def redo(self, x: np.ndarray, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The result of each part for ``values`` and the network's input ``x``, by the name of the cut."""
        if self._session is None:
            return {}
        feed = {_GIVEN + name: values[name] for name in self._given}
        if self._feeds_image:
            feed[self._input] = x
        return dict(zip(self.between, self._session.run(list(self.between), feed), strict=True))


def read_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Values that the sub-graphs of a node read, their own among them."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for child in graph.node:
                yield from child.input
                yield from read_inside(child)


def _between(name: str, made: Mapping[str, onnx.NodeProto], cuts: Collection[str]) -> list[str]:
    """The values made on the way to ``name`` from the cuts before it, ``name`` last."""
    found, waiting = [name], [name]
    while waiting:
        node = made[waiting.pop()]
        for read in (*node.input, *read_inside(node)):
            if read in made and read not in cuts and read not in found:
                found.append(read)
                waiting.append(read)
    return [*found[1:], name]


def _value(name: str) -> onnx.ValueInfoProto:
    """A float value of any shape."""
    value = onnx.ValueInfoProto(name=name)
    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return value
