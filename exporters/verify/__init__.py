"""The chain of proof: from torch over the factorized network and the hub to files, step by step and layer by layer.

    torch -> factorized torch -> hub -> ONNX -> TFLite -> quantized

Each kind of change on the way of a network (``KINDS``) has an error of its own. ``walk`` compares each version with the
version that it came from and says how much of the error enters at each layer; a pair is a chain of two. In the order
of their use:

    opening     the versions that arguments stand for: ``versions`` runs hubs and files, ``torch_version`` modules
    links       which version each one came from, and the kinds of change between them
    folded      one name for a layer's value where one file has a normalization folded into the layer
    names       the values that all versions know, and their layers; ``inputs`` has the cases they are compared on
    walk        the chain: ``ends`` compares outputs, ``gauge`` layers, of which ``parts`` runs each alone
    compare     the measures of one difference
    verdict     whether bounds are kept; ``words`` tells a chain in sentences
"""

from .compare import Difference, difference
from .ends import compare
from .gauge import Part
from .inputs import cases, common_inputs, common_shape
from .links import KINDS, Link, Named, links
from .names import Names, names_of
from .opening import Opening, open_versions
from .torch_version import TorchVersion
from .verdict import Bounds, ComparisonVerdict, check_bounds, judge
from .versions import Version, open_version
from .walk import Step, VersionChain, walk
from .words import conclusion, notes

__all__ = [
    "KINDS",
    "Bounds",
    "ComparisonVerdict",
    "Difference",
    "Link",
    "Named",
    "Names",
    "Opening",
    "Part",
    "Step",
    "TorchVersion",
    "Version",
    "VersionChain",
    "cases",
    "check_bounds",
    "common_inputs",
    "common_shape",
    "compare",
    "conclusion",
    "difference",
    "judge",
    "links",
    "names_of",
    "notes",
    "open_version",
    "open_versions",
    "walk",
]
