"""Structures: each turns a dense kernel into a ``FactorNetwork`` with its closed-form first factors.

``structure`` says what a structure is, a file for each kind has its mathematics and its source, and ``FAMILIES`` has
every method by its name.
"""

from .cp import CP
from .families import FAMILIES
from .kronecker import KroneckerShape, shapes
from .structure import Decomposition, Family, Ranks, Spectrum, Structure
from .tensor_ring import TensorRing
from .tensor_train import TensorTrain
from .tucker import Tucker2

__all__ = [
    "CP",
    "FAMILIES",
    "Decomposition",
    "Family",
    "KroneckerShape",
    "Ranks",
    "Spectrum",
    "Structure",
    "TensorRing",
    "TensorTrain",
    "Tucker2",
    "shapes",
]
