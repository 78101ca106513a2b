"""Winning accuracy back: training of compressed networks, with a teacher or without labels.

A compressed folder, whatever it was made from, becomes a ``GraphModule``; ``Trainer`` trains it, or any other module;
``KnowledgeTransfer`` is the loss against a teacher, in this loop or in one of your own; ``reconstruct`` and
``re_estimate`` need images alone.
"""

from edgekron.modules.graph_module import GraphModule
from edgekron.processes import Processes, joined

from .augmentation import Augmentation
from .examples import Examples, from_arrays
from .reconstruct import Block, reconstruct
from .responses import ResponseCache
from .results import Scores, TrainingOutcome, TrainingPosition
from .settings import TrainingSettings
from .statistics import begin_norms, re_estimate
from .trainer import Trainer
from .transfer import PRESETS, KnowledgeTransfer, Weights

__all__ = [
    "PRESETS",
    "Augmentation",
    "Block",
    "Examples",
    "GraphModule",
    "KnowledgeTransfer",
    "Processes",
    "ResponseCache",
    "Scores",
    "Trainer",
    "TrainingOutcome",
    "TrainingPosition",
    "TrainingSettings",
    "Weights",
    "begin_norms",
    "from_arrays",
    "joined",
    "re_estimate",
    "reconstruct",
]
