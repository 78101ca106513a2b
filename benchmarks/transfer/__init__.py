"""What each step wins back, from decomposing weights to knowledge transfer: ``python -m benchmarks.transfer MODEL``."""
