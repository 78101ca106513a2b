"""EDP: ranks and channels of a network learnt in one stage of training, down to a budget.

    aware = CompressedAware(module, hub, {"macs": 2.0}, images, learning_rate=0.02)
    Trainer(module, ...).run(after_step=aware.step)
    compression = finished(hub, module, aware, "name")

Source: Ruan et al., *EDP: An Efficient Decomposition and Pruning Scheme for Convolutional Neural Network Compression*
(IEEE TNNLS 2021).
"""

from .aware import CompressedAware
from .blocks import LowRankBlock
from .result import finished

__all__ = ["CompressedAware", "LowRankBlock", "finished"]
