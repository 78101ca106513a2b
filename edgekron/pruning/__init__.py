"""Pruning: channels of a hub's layers that go for good, with all that depends on them.

    pruning = prune(hub, "qsfm-ssim", PruningSettings(), ratios={"macs": 2.0}, data=batches)
    pruning.hub.save("pruned.hub.onnx")

The graph tells which channels depend on each other (``channels``, ``operators``, ``groups``). A criterion puts the
channels of each group into an order (``criteria``), and a budget or a threshold says how many go (``quotas``). Those
are taken out of the graph (``removal``), and the layers that read them are refitted without training (``repair``).
"""

from edgekron.graph.hub import kept_channels

from .criteria import CRITERIA
from .groups import ChannelStructure, Group
from .planned import pruned_plan
from .pruner import LEARNT, Pruning, PruningSettings, criterion_of, prune, prune_as
from .removal import remove

__all__ = [
    "CRITERIA",
    "LEARNT",
    "ChannelStructure",
    "Group",
    "Pruning",
    "PruningSettings",
    "criterion_of",
    "kept_channels",
    "prune",
    "prune_as",
    "pruned_plan",
    "remove",
]
