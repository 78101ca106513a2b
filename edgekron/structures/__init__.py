"""Structures: each turns a dense kernel into a ``FactorNetwork`` with its closed-form first factors."""

from .kronecker import KroneckerDecomposition, KroneckerShape, shapes

__all__ = ["KroneckerDecomposition", "KroneckerShape", "shapes"]
