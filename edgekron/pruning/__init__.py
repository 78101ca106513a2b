"""Pruning: channels of a hub's layers that go for good, with all that depends on them.

    pruning = prune(hub, "qsfm-ssim", Settings(), ratios={"macs": 2.0}, data=batches)
    pruning.hub.save("pruned.hub.onnx")

Which channels depend on which is read from the graph (``channels``, ``operators``, ``groups``), a criterion puts the
channels of each group into an order (``orders``), a budget or a threshold says how many go (``quotas``), they are taken
out of the graph (``removal``), and the layers behind them take over what they gave, without training (``repair``).
"""

from edgekron.graph.hub import kept_channels

from .groups import Group, Structure
from .orders import CRITERIA
from .planned import pruned_plan
from .pruner import LEARNT, Pruning, Settings, criterion_of, prune, prune_as
from .removal import remove

__all__ = [
    "CRITERIA",
    "LEARNT",
    "Group",
    "Pruning",
    "Settings",
    "Structure",
    "criterion_of",
    "kept_channels",
    "prune",
    "prune_as",
    "pruned_plan",
    "remove",
]
