"""Tuning: which exact form of each factorized layer is the fastest on a runtime, by measurement.

    tuning = tune(subjects_of_plan(hub, plan, fitted=True), ["onnx", "tflite"])
    plan = tuned_plan(plan, tuning)

``subject`` says what a layer is, ``candidates`` what it could be, ``surroundings`` in what company it is measured,
``race`` and ``layer`` measure, ``cache`` remembers, ``results`` chooses, ``network`` checks the whole network,
``outcome`` is the evidence, ``apply`` writes plans and hubs.
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
