"""Tuning: which exact form of each factorized layer is the fastest on a runtime, by measurement.

    tuning = tune(subjects_of_plan(hub, plan, fitted=True), ["onnx", "tflite"])
    plan = tuned_plan(plan, tuning)

``subject`` describes a layer, ``candidates`` lists the forms worth a try, ``surroundings`` puts the layer into a small
network, ``race`` and ``layer`` measure, ``cache`` remembers, ``results`` chooses, ``network`` checks the choices in the
whole network, ``outcome`` holds the evidence, and ``apply`` writes plans and hubs.
"""

from .apply import tuned_compression, tuned_plan
from .candidates import FILL
from .network import checked
from .outcome import Tuning
from .subject import Subject, subjects_of_hub, subjects_of_plan
from .tuner import targets_of, tune

__all__ = [
    "FILL",
    "Subject",
    "Tuning",
    "checked",
    "subjects_of_hub",
    "subjects_of_plan",
    "targets_of",
    "tune",
    "tuned_compression",
    "tuned_plan",
]
