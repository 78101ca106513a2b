"""Planning: from a hub and ratios to a plan, the choice of a structure and its ranks for every layer.

``survey`` walks through the network, ``candidates`` lists the structures that a layer could get, ``ranks`` has
rules that read ranks from singular values, ``allocation`` chooses within the ratios, ``plan`` is the text of the
choice, and ``lines`` reads a line of that text for a layer.
"""

from .candidates import METHODS, Candidate, ErrorBound
from .plan import CompressionPlan, LayerPlan
from .ranks import Energy, Evbmf, RankRule
from .survey import PlanOptions, make_plan

__all__ = [
    "METHODS",
    "Candidate",
    "CompressionPlan",
    "Energy",
    "ErrorBound",
    "Evbmf",
    "LayerPlan",
    "PlanOptions",
    "RankRule",
    "make_plan",
]
