"""Files in smaller types than float32; ``exporters.export`` writes them.

The quantizers are those of the runtimes' makers (``onnxruntime.quantization`` and ``ai-edge-quantizer``). This package
prepares a network for a quantizer: factors are rebalanced (``rebalance``), and layers take the forms that quantize
correctly and run fast (``forms``).
"""

from .types import DTYPES, Quantization

__all__ = ["DTYPES", "Quantization"]
