"""The chain of proof: from torch over the factorized network and the hub to files, step by step and layer by layer.

    torch -> factorized torch -> hub -> ONNX -> TFLite -> quantized

Three things change a network on its way, and each has an error of its own: decomposition (another plan), conversion
(another format) and quantization (smaller types). ``walk`` compares each version with the one that it came from and
says how much of the error enters at each layer. One idea a file: ``links`` finds what each version came from,
``ends`` compares outputs, ``torch_version`` looks into modules, ``parts`` computes what each part of a version makes
of given values, ``gauge`` and ``sums`` measure in pieces, ``words`` says it in a sentence.
"""

from .gauge import Names, Part
from .links import CONVERSION, DECOMPOSITION, KINDS, QUANTIZATION, Link, Named, links
from .torch_version import TorchVersion
from .walk import Chain, Step, walk
from .words import conclusion

__all__ = [
    "CONVERSION",
    "DECOMPOSITION",
    "KINDS",
    "QUANTIZATION",
    "Chain",
    "Link",
    "Named",
    "Names",
    "Part",
    "Step",
    "TorchVersion",
    "conclusion",
    "links",
    "walk",
]
