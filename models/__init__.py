"""Reference networks, their training recipes and checkpoints, and bundled data."""

from .catalog import NETWORKS, BundledNetwork, build, facts, load

__all__ = ["NETWORKS", "BundledNetwork", "build", "facts", "load"]
