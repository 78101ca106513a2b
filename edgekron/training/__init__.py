"""Winning accuracy back: training of compressed networks, with a teacher or without labels.

A compressed folder, whatever it was made from, becomes a ``GraphModule``. ``Trainer`` trains such a module, or any
other one; ``KnowledgeTransfer`` is the loss against a teacher, in this loop or in a loop of your own. ``reconstruct``
and ``re_estimate`` need images alone. ``Training`` is a whole session, as a ``TrainingRequest`` describes it.
"""

from edgekron.modules.graph_module import GraphModule
from edgekron.processes import Processes, joined

from .augmentation import Augmentation
from .examples import Examples, from_arrays
from .finetuned import Finetuned
from .reconstruct import Block, reconstruct
from .request import TrainingRequest
from .responses import ResponseCache
from .results import Scores, TrainingOutcome, TrainingPosition
from .session import SessionListener, Training
from .settings import TrainingSettings
from .statistics import begin_norms, re_estimate
from .trainer import Trainer
from .transfer import PRESETS, KnowledgeTransfer, Weights

__all__ = [
    "PRESETS",
    "Augmentation",
    "Block",
    "Examples",
    "Finetuned",
    "GraphModule",
    "KnowledgeTransfer",
    "Processes",
    "ResponseCache",
    "Scores",
    "SessionListener",
    "Trainer",
    "Training",
    "TrainingOutcome",
    "TrainingPosition",
    "TrainingRequest",
    "TrainingSettings",
    "Weights",
    "begin_norms",
    "from_arrays",
    "joined",
    "re_estimate",
    "reconstruct",
]
