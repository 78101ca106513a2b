"""Fitting: factors that give a layer's outputs on real inputs, not only its weights.

A ``Walk`` runs a hub over calibration images, layer by layer; ``sample`` takes a layer's ``Moments`` and some held-out
patches where it stands; a ``Fitter`` finds the factors of a structure for them, in closed form first. ``OutputError``
tells how much an error in one layer changes the outputs of the whole network.
"""

from .calibration import Sample, Walk, apply_kernel, patches_of, sample
from .fit import Fit, Fitter, as_factorized, kernel_of
from .moments import Moments, MomentSums, sample_patches
from .output_error import OutputError

__all__ = [
    "Fit",
    "Fitter",
    "MomentSums",
    "Moments",
    "OutputError",
    "Sample",
    "Walk",
    "apply_kernel",
    "as_factorized",
    "kernel_of",
    "patches_of",
    "sample",
    "sample_patches",
]
