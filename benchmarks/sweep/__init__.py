"""Networks that nobody here wrote, all the way to files: ``python -m benchmarks.sweep``."""
