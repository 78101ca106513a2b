"""The version that each version of a chain came from, and the changes between the two.

No file says which file it was made from, so each version is linked to the earlier version that is most like it. A
quantized version is no choice as long as there is an earlier version in float32. Versions of the same network come
first, then versions with other forms, with other values, the original network, and networks of another structure; among
equals comes the version that differs in the fewest of precision and format; among equals the latest.

The order of a chain therefore hardly matters, and files of several formats and types may stand in one chain: each
quantized file is compared with the float file of its own format where the chain has that file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekron.graph.identity import DECOMPOSITION, PRUNING, TRAINING, TUNING, Identity, changes

from .versions import Version

#: The changes of a file beside those of the network in it.
CONVERSION, QUANTIZATION = "conversion", "quantization"
#: All that can change from one version to the next.
KINDS = (DECOMPOSITION, PRUNING, TRAINING, TUNING, CONVERSION, QUANTIZATION)


@dataclass(frozen=True)
class Named:
    """A version and what it is called in tables and messages."""

    title: str
    version: Version


@dataclass(frozen=True)
class Link:
    """``child`` is compared with ``parent``, both by their place in the chain; ``kinds`` is what changed, of KINDS."""

    parent: int
    child: int
    kinds: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What changed, in words."""
        return " and ".join(self.kinds)


def links(chain: Sequence[Named]) -> list[Link]:
    """One link for every version but the first."""
    versions = [entry.version for entry in chain]
    found = []
    for child in range(1, len(versions)):
        parents = [i for i in range(child) if versions[i].precision == "float32"] or [0]
        parent = min(parents, key=lambda i: (*_distance(versions[i], versions[child]), -i))
        found.append(Link(parent, child, _kinds(versions[parent], versions[child])))
    return found


def _distance(parent: Version, child: Version) -> tuple[int, int]:
    changed = changes(parent.identity, child.identity)
    if DECOMPOSITION in changed or PRUNING in changed:
        networks = 3 if (parent.identity or Identity()).original else 4
    else:
        networks = 2 if TRAINING in changed else 1 if TUNING in changed else 0
    return networks, (parent.precision != child.precision) + (parent.kind != child.kind)


def _kinds(parent: Version, child: Version) -> tuple[str, ...]:
    found = list(changes(parent.identity, child.identity))
    found += [CONVERSION] * (parent.kind != child.kind) + [QUANTIZATION] * (parent.precision != child.precision)
    # Two files that differ in nothing that is known were at least written apart.
    return tuple(found) or (CONVERSION,)
